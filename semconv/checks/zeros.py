"""Random values for zero weights, which would hide dependencies from a check."""

import torch
from torch import nn


def draw_zeros(network: nn.Module) -> None:
    """Draw every parameter that is entirely 0 from N(0, .2^2), in place, with the same values at every call.

    Parameters that start at zero (weights of indicators, tokens, the last norm of a residual branch) block their branch before
    training: a check of possible dependencies needs them to be nonzero.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
