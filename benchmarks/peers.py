"""Masked autoencoders of other packages, built to the dimensions of ours, and training steps of any of them.

    python -m benchmarks.peers lightly --batch 128      a few training steps in a process of its own, to measure its memory

The same encoder, decoder, share of masked patches, normalised targets and loss on masked patches alone. MAE's reference code is no
package and has a non-commercial licence: it is not among them.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from semconv.encoders import Geometry, Size
from semconv.encoders.sizes import dimensions

RATIO = 0.75
Loss = Callable[[Tensor], Tensor]  # of images `b c h w`


class Steps:
    """Training steps on one batch: forward, backward, AdamW.

    Args:
        network: holds the parameters.
        loss: of the images; draws masks anew.
        images: `b c h w`.
    """

    def __init__(self, network: nn.Module, loss: Loss, images: Tensor) -> None:
        self.network, self.loss, self.images = network.train(), loss, images
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def __call__(self, number: int = 1) -> float:
        """Seconds of a number of steps."""
        begin = time.perf_counter()
        for _ in range(number):
            self.optimizer.zero_grad()
            self.loss(self.images).backward()
            self.optimizer.step()
        return time.perf_counter() - begin


def semconv_mae(geometry: Geometry, size: Size) -> tuple[nn.Module, Loss]:
    """Ours, as `mae_vit` trains it."""
    # here, so that a process of a peer imports no Lightning
    from semconv.corruption import Hide
    from semconv.data import Batch
    from semconv.decoders import TransformerDecoder
    from semconv.encoders import MAEViT
    from semconv.masking import RandomMasker
    from semconv.objective import Objective
    from semconv.tasks import MaskedReconstruction

    task = MaskedReconstruction(
        MAEViT,
        TransformerDecoder,
        RandomMasker(RATIO),
        Hide(),
        Objective(geometry.cell),
        geometry.size,
        cell=geometry.cell,
        size=size,
    )

    def loss(images: Tensor) -> Tensor:
        index = torch.arange(len(images))
        view, mask = task.look(Batch(images, index, index), "test")
        return task.objective(task(view), images, mask)

    return task, loss


def transformers_mae(geometry: Geometry, size: Size) -> tuple[nn.Module, Loss]:
    """`ViTMAEForPreTraining` of transformers."""
    from tests.peers import make_hugging_face

    model = make_hugging_face(geometry, size, round(RATIO * geometry.grid[0] * geometry.grid[1]))
    return model, lambda images: model(images).loss


def lightly_mae(geometry: Geometry, size: Size) -> tuple[nn.Module, Loss]:
    """The parts of lightly, put together as its documentation describes."""
    from lightly.models import utils
    from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    vit, decoder, patch = dimensions(size).vit, dimensions(size).decoder, geometry.cell
    encoder = MaskedVisionTransformerTIMM(
        VisionTransformer(
            geometry.size,
            patch,
            embed_dim=vit.width,
            depth=vit.depth,
            num_heads=vit.heads,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    )
    num_patches = geometry.grid[0] * geometry.grid[1]
    blocks = MaskedVisionTransformerDecoderTIMM(num_patches, decoder.width, decoder.depth, decoder.heads)
    embed, predict = nn.Linear(vit.width, decoder.width), nn.Linear(decoder.width, patch**2 * geometry.channels)

    def loss(images: Tensor) -> Tensor:
        kept, masked = utils.random_token_mask((len(images), encoder.sequence_length), RATIO)
        tokens = utils.repeat_token(blocks.mask_token, (len(images), encoder.sequence_length))
        tokens = utils.set_at_index(tokens, kept, embed(encoder.encode(images, idx_keep=kept)))
        predicted = predict(utils.get_at_index(blocks(tokens), masked))
        targets = utils.get_at_index(utils.patchify(images, patch), masked - 1)  # without the class token
        return nn.functional.mse_loss(predicted, utils.normalize_mean_var(targets))

    return nn.ModuleList([encoder, blocks, embed, predict]), loss


OURS = "semconv"
PEERS = {"transformers": transformers_mae, "lightly": lightly_mae}


def installed() -> list[str]:
    """The peers that are installed."""
    return [name for name in PEERS if importlib.util.find_spec(name)]


def make_steps(name: str, geometry: Geometry, size: Size, batch: int) -> Steps:
    """Training steps of ours, or of a peer, on random images."""
    network, loss = {OURS: semconv_mae, **PEERS}[name](geometry, size)
    return Steps(network, loss, torch.randn(batch, geometry.channels, *geometry.size))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[OURS, *PEERS])
    parser.add_argument("--size", default="test", help="size of the networks")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args(words)
    make_steps(given.name, Geometry(3, (32, 32), 4), given.size, given.batch)(given.steps)


if __name__ == "__main__":
    main()
