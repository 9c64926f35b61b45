"""Lightning's Callback if Lightning is installed, else object, so that this package can be imported without it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Callback as Callback
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        Callback = object
