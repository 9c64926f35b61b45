import subprocess
import sys

import pytest

import semconv


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, semconv; print(sorted({'torch', 'numpy', 'timm', 'lightning'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there_and_listed() -> None:
    for name in semconv.__all__:
        assert getattr(semconv, name).__name__ == name
    assert set(semconv.__all__) <= set(dir(semconv))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'semconv' has no attribute 'load_everything'"):
        semconv.load_everything  # type: ignore[attr-defined]  # noqa: B018
