"""The full evaluation: images that are changed, with all that comes with them, and what is asked of them."""

from functools import partial

import pytest
import torch

from semconv.corruption import View
from semconv.data import Batch
from semconv.data.augmentation import crop_frames
from semconv.encoders import Encoding
from semconv.evaluation import full, quick
from semconv.evaluation.probes import PENALTIES, LinearClassifier, choose_linear
from semconv.indicators import CropFrame, ExternalMap, Grid
from tests.evaluation.test_probes import evaluated
from tests.indicators.views import draw_seen

CHANGES = full._changes(8)


def show(batch: Batch, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """What is told of place and class."""
    view = draw_seen(2)._replace(pixels=batch.images, frame=batch.frame, external=batch.external)
    return CropFrame()(view, grid)[:, :2], ExternalMap(4)(view, grid)


@pytest.mark.parametrize("name", ["shift_3", "flip", "resolution_0.75", "resolution_2"])
def test_maps_and_frames_are_changed_with_the_images(name):
    # classes are the sign of the pixels, so that it can be seen whether both have gone the same way
    images = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    frame = crop_frames(
        torch.tensor([[64, 64]] * 2), torch.tensor([[3, 5, 32, 48], [0, 8, 40, 30]]), torch.tensor([False, True]), (32, 48)
    )
    index = torch.arange(2)
    batch = Batch(images, index, index, None, None, frame, (images[:, :1] > 0).to(torch.uint8))
    changed = CHANGES[name](batch)
    assert changed.external is not None
    assert changed.external.shape[2:] == changed.images.shape[2:]
    # bicubic colours may change their sign beside a border that the nearest pixel's class does not cross
    assert ((changed.images[:, :1] > 0) == changed.external).float().mean() > (0.9 if "resolution" in name else 0.9999)
    before, after = show(batch, Grid(8, 12))[0], show(changed, Grid(8, 12))[0]
    torch.testing.assert_close(after, before.flip(3) if name == "flip" else before, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize("recalibrate", [False, True])
def test_unchanged_images_are_classified_as_by_the_quick_evaluation(recalibrate, monkeypatch):
    monkeypatch.setattr(full, "choose_linear", partial(choose_linear, penalties=PENALTIES[:1]))
    those = evaluated("cnn_plain", "--model.encoder.norm=batch", "--model.size=micro")
    for _ in range(3):  # running statistics of masked images
        for batch in those.batches("train", None):
            those.task.encoder.train()(those.task.look(batch, "probe")[0])
    results, classifier = quick.evaluate(those, 100, recalibrate)
    found = full.evaluate(those, classifier, recalibrate)
    assert found["full/linear_top1/unchanged"] == results["probe/linear_top1"]


def test_what_a_network_cannot_be_asked_is_null_with_the_reason():
    those = evaluated("cnn_plain", "--model.padding_mode=reflect", "--model.cell=8", "--model.size=micro")
    classifier = LinearClassifier(torch.zeros(1), torch.ones(1), torch.zeros(10, 1), torch.zeros(10), 0.1)
    found = full._top1(those, "resolution_0.75", CHANGES["resolution_0.75"], classifier)
    assert found["full/linear_top1/resolution_0.75"] is None
    assert "Padding size should be less than" in found["full/linear_top1/resolution_0.75/reason"]
    silent = those._replace(other=Silent())
    key = "full/equivariance_error/shift_1"
    assert full._asked(key, partial(full.equivariance_error, silent, 1))[f"{key}/reason"].endswith(": all features are zero")

    def exhausted() -> float:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):  # says nothing of the network
        full._asked(key, exhausted)


class Silent(torch.nn.Module):
    """An encoder without features."""

    def forward(self, view: View) -> Encoding:
        return Encoding(torch.zeros(len(view.pixels), 3, 8, 8))


def test_what_is_not_there_stays_away():
    index = torch.arange(2)
    batch = Batch(torch.randn(2, 3, 32, 48), index, index)
    for change in CHANGES.values():
        assert change(batch).external is None
        assert change(batch).frame is None
