"""Weights that are zero hide what a network could do."""

import torch
from torch import nn


def draw_zeros(network: nn.Module) -> None:
    """Draw all weights of a parameter that is wholly 0 from a normal of deviation .2, in place, the same ones at every call.

    What starts at zero (the weights of indicators, tokens, the last norm of a residual branch) lets nothing through before it has
    been trained: a check of what is possible needs it open.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
