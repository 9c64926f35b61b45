"""Semantic convolutions: CNNs conditioned on mask and position, trained by masked reconstruction beside an MAE-ViT baseline."""

from importlib import import_module
from typing import TYPE_CHECKING

from semconv.version import __version__ as __version__

__all__ = ["SemanticConv2d", "compare", "load_exported", "load_mae_checkpoint", "load_run", "semanticize"]

if TYPE_CHECKING:
    from semconv.comparison.finished import compare
    from semconv.convolution import SemanticConv2d
    from semconv.rewriting.network import semanticize
    from semconv.trained.export import load_exported
    from semconv.trained.mae import load_mae_checkpoint
    from semconv.trained.run import load_run
else:
    _MODULES = {
        "SemanticConv2d": "semconv.convolution",
        "compare": "semconv.comparison.finished",
        "load_exported": "semconv.trained.export",
        "load_mae_checkpoint": "semconv.trained.mae",
        "load_run": "semconv.trained.run",
        "semanticize": "semconv.rewriting.network",
    }

    def __getattr__(name: str) -> object:
        # imported when first asked for (PEP 562): `import semconv` alone needs no torch
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted(globals().keys() | _MODULES.keys())
