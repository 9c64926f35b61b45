"""The environment of a run: command, code, versions and machine."""

import ast
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semconv.tracking.secrets import redact
from semconv.version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "jsonargparse",
    "omegaconf",
    "timm",
    "einops",
    "torchmetrics",
    "numpy",
    "pillow",
    "wandb",
)
# what starts, records and compares runs: a change of it changes no number of a run
APART = (
    "memory.py",
    "checks",
    "commands",
    "comparison",
    "pictures.py",
    "study",
    "sweeping",
    "tracking",
    "trained",
    "version.py",
)


def describe_session(about: Mapping[str, Any]) -> dict[str, Any]:
    """Describe this session of a run: start, command, versions, commit, machine. It holds no secret and no name of a person.

    Args:
        about: further entries, such as the device.
    """
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redact(sys.argv),
        **git_state(Path(__file__).parent),
        "code": code_of(Path(__file__).parents[1]),
        "versions": {"semconv": __version__, "python": platform.python_version(), **_installed(PACKAGES)},
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        **about,
    }


@cache
def processor(information: Path = Path("/proc/cpuinfo")) -> str | None:
    """Maker, family and model of the processor, such as `GenuineIntel 6 207`: libraries choose code by it, each rounding otherwise.

    Args:
        information: Linux's description of it; without one, what Python knows.
    """
    try:
        lines = (line.partition(":") for line in information.read_text(encoding="utf-8").splitlines())
    except OSError:
        return platform.processor() or None
    known = {name.strip(): value.strip() for name, _, value in lines}
    return " ".join(known[name] for name in ("vendor_id", "cpu family", "model") if name in known) or platform.machine()


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the code in a folder, and whether the code has changed since; None for both outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:  # installed inside another repository
        return {"git_commit": None, "git_dirty": None}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": bool(changes)}


@cache
def code_of(package: Path) -> str:
    """A hash of the code that a run computes by, the same whatever its comments, docstrings and layout say."""
    digest = blake2b(digest_size=6)
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in APART:
            digest.update(f"{name.as_posix()}\n{ast.dump(_bare(ast.parse(path.read_bytes())))}\n".encode())
    return digest.hexdigest()


def _bare(tree: ast.Module) -> ast.Module:
    """A module without its docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tree


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _installed(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
