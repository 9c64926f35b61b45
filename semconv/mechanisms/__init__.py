"""How a convolution can be told: one file each."""

from semconv.convolution import Mechanism, Plain
from semconv.mechanisms.appended import AppendedValues
from semconv.mechanisms.channels import Channels
from semconv.mechanisms.mask_token import MaskToken
from semconv.mechanisms.overlay import OverlayAdd, OverlayReplace
from semconv.mechanisms.sparse import Sparse

__all__ = ["AppendedValues", "Channels", "MaskToken", "Mechanism", "OverlayAdd", "OverlayReplace", "Plain", "Sparse"]
