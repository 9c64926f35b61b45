"""Networks from a view to features."""

from semconv.encoders.cnn import SemanticCNN
from semconv.encoders.encoder import Encoder, Encoding, Geometry, initialise
from semconv.encoders.sizes import Size
from semconv.encoders.timm_cnn import TimmEncoder
from semconv.encoders.vit import MAEViT

__all__ = ["Encoder", "Encoding", "Geometry", "MAEViT", "SemanticCNN", "Size", "TimmEncoder", "initialise"]
