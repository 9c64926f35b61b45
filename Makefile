# make demo: set up and run the main job. make test: set up and run all checks. make docs: build the documentation.
# make bench, make gpu: figures of this machine, of its GPU, into benchmarks/results and docs/performance.md. make results: write all results into the documents.
# make mutants: test the tests. make campaign: try to break it, for 15 minutes. make test-minimum: the tests on the lowest versions allowed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/studies/demo

.PHONY: setup test lint docs bench gpu results mutants campaign test-minimum demo clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# the site, into site/; a warning is an error
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# tables, verdicts and the picture of the answer, from results/*.csv; figures, from benchmarks/results/*.json
results: setup
	$(BIN)/python -m results.fill

lint: setup docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/pytest -n auto

# some minutes on two idle cores: docs/performance.md
bench: setup
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.cpu
	$(BIN)/python -m results.fill

# needs CUDA: docs/performance.md
gpu: setup
	$(BIN)/python -m benchmarks.gpu; code=$$?; $(BIN)/python -m results.fill && exit $$code

# faults put into the package, one at a time, for the tests to notice: docs/testing.md
mutants: setup
	$(BIN)/python -m tests.mutants --output build/mutants/here.json

# runs, records, folders, options and secrets, at random: docs/reliability.md
campaign: setup
	$(BIN)/python -m tests.campaign --output build/campaign.json

# in an environment of its own; old versions warn of what newer ones have changed
test-minimum:
	$(PYTHON) -m venv --clear build/minimum
	build/minimum/bin/python -m pip install --quiet --upgrade pip
	build/minimum/bin/python -m pip install --quiet torch torchvision
	$(PYTHON) tests/minimum.py > build/minimum/constraints.txt
	build/minimum/bin/python -m pip install --quiet --constraint build/minimum/constraints.txt --editable ".[dev]"
	build/minimum/bin/pytest -n auto -o filterwarnings=default

# goes on where it was stopped; make clean, and it begins anew
demo: setup
	$(BIN)/semconv study sweeps/studies/demo.yaml --jobs 2 --resume

clean:
	rm -rf $(VENV) $(DEMO) site .mypy_cache .pytest_cache .ruff_cache
