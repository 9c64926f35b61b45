"""Steps whose numbers are no longer finite; runs that end so are in tests/reliability/test_divergence.py."""

from types import SimpleNamespace
from typing import Any, cast

import torch

from semconv.callbacks.divergence import Diverged, Divergence

NAN = float("nan")


def train(losses, gradients, limit, accumulate=2):
    """Steps of several batches each, with these losses; the number of batches after which training ends."""
    divergence, module = Divergence(limit), cast(Any, torch.nn.Linear(1, 1, bias=False))
    trainer: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=None), optimizers=[], current_epoch=0, world_size=1)
    trainer.strategy, trainer.global_step, trainer.is_last_batch = SimpleNamespace(root_device=torch.device("cpu")), 0, False
    for number, loss in enumerate(losses):
        divergence.on_train_batch_start(trainer, module, None, number)
        if (number + 1) % accumulate == 0:
            module.weight.grad = torch.full_like(module.weight, gradients[number // accumulate])
            divergence.on_before_optimizer_step(trainer, module, torch.optim.SGD([module.weight]))
            trainer.global_step += 1
        try:
            divergence.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, None, number)
        except Diverged as error:
            return number + 1, str(error)
    return None


def test_accumulated_batches_are_one_step():
    assert train([NAN, NAN, 1.0, 1.0], [NAN, 1.0], limit=2) is None
    ended, said = train([1.0] * 8, [1.0, NAN, NAN, 1.0], limit=2)
    assert (ended, "the gradient is not finite at step 1 " in said, "batch 2 of epoch 0" in said) == (6, True, True)
    ended, said = train([1.0, 1.0, NAN, 1.0], [1.0, 1.0], limit=1)
    assert (ended, "the loss is not finite at step 1 " in said) == (4, True)
