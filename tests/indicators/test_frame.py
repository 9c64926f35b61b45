"""Where a crop was taken, carried from the data to the network."""

import math

import pytest
import torch
from torch import Tensor

from semconv.data.augmentation import Augmentation, centre_boxes, centre_crops, crop_each, crop_frames
from semconv.indicators import Coordinates, CropFrame, Grid
from semconv.indicators.frame import turn_frame
from tests.indicators.views import STAGES, assert_close, draw_seen
from tests.pairwise import together

SIZE = (16, 24)


def ramps(sides: Tensor) -> list[Tensor]:
    """Images whose first channel is x and whose second is y, -1 at the left and top edges to 1, as bytes."""
    images = []
    for height, width in sides.tolist():
        y, x = ((torch.arange(length).double() + 0.5) / length for length in (height, width))
        images.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).mul(255).round().to(torch.uint8))
    return images


def told(sides: Tensor, boxes: Tensor, flipped: Tensor | None) -> Tensor:
    """What the indicator says of views that are cut out so."""
    frame = crop_frames(sides, boxes, flipped, SIZE)
    view = draw_seen(len(sides))._replace(frame=frame)
    return CropFrame()(view, Grid(SIZE[0], SIZE[1]))


def test_a_site_is_told_what_a_picture_of_coordinates_shows_there():
    sides = torch.tensor([[60, 90], [128, 128], [200, 77]] * 4)
    augmentation = Augmentation(seed=0, crop_scale=(0.2, 1.0), flip=True)
    index = torch.arange(12)
    boxes, flipped = augmentation.boxes(sides, 0, index), augmentation.flips(0, index)
    assert boxes is not None
    assert flipped is not None
    assert 0 < flipped.sum() < 12
    shown = crop_each(ramps(sides), boxes, SIZE)
    shown = torch.where(flipped[:, None, None, None], shown.flip(-1), shown)
    # bytes, and bicubic resizing: 2 of 255 steps, more at the borders of a crop, where the kernel is cut off
    apart = (told(sides, boxes, flipped)[:, :2] - (shown.float() / 255 * 2 - 1)).abs()
    assert apart[:, :, 2:-2, 2:-2].max() < 0.02
    assert apart.max() < 0.06


@together("side", [(60, 90), (128, 128), (200, 77), (16, 24), (33, 50)])
def test_the_crop_of_evaluation_has_a_frame_too(side):
    sides = torch.tensor([side])
    shown = centre_crops(ramps(sides), SIZE).float() / 255 * 2 - 1
    ours = told(sides, centre_boxes(sides, SIZE), None)
    assert (ours[:, :2] - shown).abs()[:, :, 2:-2, 2:-2].max() < 0.02
    kept = min(side[0] / 16, side[1] / 24) ** 2 * 16 * 24 / (side[0] * side[1])
    assert ours[0, 2, 0, 0].item() == pytest.approx(kept, rel=0.03)  # sides are rounded to whole pixels
    assert ours[0, 3].abs().max() < 0.1


def test_scale_and_stretch_are_the_boxes():
    sides, boxes = torch.tensor([[100, 200]] * 3), torch.tensor([[10, 20, 50, 75], [0, 0, 60, 120], [0, 0, 60, 30]])
    ours = told(sides, boxes, torch.tensor([False, True, False]))
    assert_close(ours[:, 2, 0, 0], torch.tensor([50 * 75, 60 * 120, 60 * 30]).double() / 20_000)
    # views are 3/2 as wide as high: as the first box; the second is 4/3 as wide, the third far narrower
    assert_close(ours[:, 3, 0, 0], torch.tensor([0.0, 1.0, -1.0]).double())
    assert_close(crop_frames(sides, boxes, None, SIZE)[:, 4], torch.tensor([1, 4 / 3, 1 / 3]).double().log())


@together("sites", STAGES)
def test_a_view_that_does_not_say_shows_all_of_its_original(sites):
    grid, view = Grid(sites[0], sites[1], (1, 2)), draw_seen()._replace(frame=None)
    ours = CropFrame()(view, grid)
    assert torch.equal(ours[:, :2], Coordinates()(view, grid).expand(3, -1, -1, -1))
    assert (ours[:, 2] == 1).all()
    assert (ours[:, 3] == 0).all()


def test_a_frame_turns_with_its_view():
    view, grid = draw_seen(), Grid(8, 12)
    assert view.frame is not None
    ours = CropFrame()(view, grid)
    for across, down in ((True, False), (False, True), (True, True)):
        turned = CropFrame()(view._replace(frame=turn_frame(view.frame, across, down)), grid)
        dims = [dim for dim, turns in ((3, across), (2, down)) if turns]
        torch.testing.assert_close(turned, ours.flip(dims), rtol=0, atol=1e-6)


def test_the_frame_of_a_whole_image_is_the_same_however_large_it_is():
    sides = torch.tensor([[32, 48], [160, 240]])
    whole = torch.cat([torch.zeros(2, 2), sides], 1)
    frames = crop_frames(sides, whole, None, SIZE)
    assert_close(frames, torch.tensor([[0, 0, 1, 1, 0]]).double())
    assert math.isclose(frames[0, 2], 1)
