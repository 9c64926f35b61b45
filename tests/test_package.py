import ctypes
import resource
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


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc alone")
def test_commands_use_freed_memory_again():
    """In a process of its own: the setting cannot be taken back."""
    code = """
import resource, sys
from semconv.__main__ import main

def faults():
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

before = faults()
sys.argv = ["semconv", "list", "data"]
main()
faults()
print(before, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.splitlines()[-1].split())
    assert before >= 4 * 2**26 / resource.getpagesize() / 512  # a huge page at the least
    assert after < before / 10
