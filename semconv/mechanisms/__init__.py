"""Mechanisms: the ways in which signals enter a convolution, one file each."""

from semconv.convolution import Mechanism, Plain
from semconv.mechanisms.appended import AppendedValues
from semconv.mechanisms.channels import Channels
from semconv.mechanisms.film import FiLM
from semconv.mechanisms.gated import Gated
from semconv.mechanisms.gradual import Gradual
from semconv.mechanisms.local_attention import LocalAttention
from semconv.mechanisms.mask_token import MaskToken
from semconv.mechanisms.overlay import OverlayAdd, OverlayReplace
from semconv.mechanisms.partial import Partial
from semconv.mechanisms.sparse import Sparse

__all__ = [
    "AppendedValues",
    "Channels",
    "FiLM",
    "Gated",
    "Gradual",
    "LocalAttention",
    "MaskToken",
    "Mechanism",
    "OverlayAdd",
    "OverlayReplace",
    "Partial",
    "Plain",
    "Sparse",
]
