"""Semantic convolutions: CNNs that are told what is masked and where they are, beside a baseline MAE-ViT."""

__version__ = "0.1.0"
