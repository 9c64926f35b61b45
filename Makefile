# make demo: set up and run the main job. make test: set up and run all checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := mae_vit cnn_plain cnn_channels cnn_appended

.PHONY: setup test lint demo clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto

demo: setup
	rm -rf runs/demo
	for variant in $(DEMO); do \
		$(BIN)/semconv run -c experiments/base.yaml -c experiments/$$variant.yaml --runs runs/demo || exit; \
	done
	$(BIN)/semconv compare runs/demo
	@echo "pictures:"; ls runs/demo/*/*/media/test.png

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache
