"""Images that are changed, with all that comes with them."""

import pytest
import torch

from semconv.data import Batch
from semconv.data.augmentation import crop_frames
from semconv.evaluation.full import _changes
from semconv.indicators import CropFrame, ExternalMap, Grid
from tests.indicators.views import draw_seen

CHANGES = _changes(8)


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


def test_what_is_not_there_stays_away():
    index = torch.arange(2)
    batch = Batch(torch.randn(2, 3, 32, 48), index, index)
    for change in CHANGES.values():
        assert change(batch).external is None
        assert change(batch).frame is None
