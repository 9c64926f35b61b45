"""Crops and flips."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from semconv.data.augmentation import Augmentation, augment, centre_crops, crop_boxes, crop_each, crop_together, resize
from semconv.data.batch import Batch
from semconv.hashing import make_keys
from tests.pairwise import together

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def boxes_of(height: int, width: int, count: int, scale: tuple[float, float] = SCALE) -> torch.Tensor:
    sides = torch.full((count,), height), torch.full((count,), width)
    return crop_boxes(make_keys("test", torch.arange(count)), *sides, scale)


def augmented(augmentation: Augmentation, images: Tensor, size: tuple[int, int], epoch: int, index: Tensor) -> Tensor:
    sides = torch.tensor([image.shape[-2:] for image in images])
    batch = Batch(images, index, index, augmentation.boxes(sides, epoch, index), augmentation.flips(epoch, index))
    return augment(batch, size).images


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 24), (17, 90)])
def test_boxes_have_the_distribution_of_torchvisions(height: int, width: int) -> None:
    count = 6000
    image = noise(3, height, width)
    torch.manual_seed(0)
    reference = torch.tensor([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(count)]).double()
    ours = boxes_of(height, width, count).double()
    spread = (ours.var(0) + reference.var(0)).div(count).sqrt()
    assert ((ours.mean(0) - reference.mean(0)).abs() < 4 * spread + 1e-9).all()  # four standard errors
    torch.testing.assert_close(ours.std(0), reference.std(0), rtol=0.05, atol=0.05)  # 6000 draws: 1 %, heavy tails


@together("height, width", [(32, 32), (40, 24), (5, 200), (200, 5), (1, 1)])
def test_boxes_lie_inside_the_image(height: int, width: int) -> None:
    top, left, box_height, box_width = boxes_of(height, width, 2000).unbind(-1)
    assert bool(((top >= 0) & (left >= 0) & (box_height > 0) & (box_width > 0)).all())
    assert bool(((top + box_height <= height) & (left + box_width <= width)).all())


def test_the_whole_of_a_square_image_can_be_kept() -> None:
    boxes = boxes_of(64, 64, 500, (1.0, 1.0))
    assert bool((boxes == torch.tensor([0, 0, 64, 64])).all(-1).any())


def test_a_strip_that_no_attempt_fits_is_cut_at_its_centre() -> None:
    # width 200 at most 4/3 of height 5: round(6.67) = 7 pixels, from (200 - 7) // 2 on; as torchvision's fallback
    assert boxes_of(5, 200, 3, (1.0, 1.0)).tolist() == [[0, 96, 5, 7]] * 3
    assert boxes_of(200, 5, 3, (1.0, 1.0)).tolist() == [[96, 0, 7, 5]] * 3


def test_boxes_depend_on_the_key_alone() -> None:
    keys = make_keys("test", torch.arange(9))
    sides = torch.arange(20, 29), torch.arange(40, 31, -1)
    together = crop_boxes(keys, *sides, SCALE)
    alone = [crop_boxes(keys[i : i + 1], sides[0][i : i + 1], sides[1][i : i + 1], SCALE) for i in range(9)]
    assert torch.equal(together, torch.cat(alone))


def resized_crops(images: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """As torchvision's RandomResizedCrop does it."""
    crop = partial(transforms.resized_crop, size=list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return torch.stack([crop(image, *box) for image, box in zip(images, boxes.tolist(), strict=True)])


def test_crops_are_torchvisions_resized_crops() -> None:
    images = [noise(3, 30, 41), noise(3, 64, 64), noise(3, 9, 12)]
    sides = torch.tensor([[30, 41], [64, 64], [9, 12]])
    boxes = crop_boxes(make_keys("test", torch.arange(3)), sides[:, 0], sides[:, 1], SCALE)
    assert torch.equal(crop_each(images, boxes, (16, 24)), resized_crops(images, boxes, (16, 24)))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (48, 64), (30, 41), (96, 96), (256, 200)])
def test_crops_made_together_are_torchvisions_within_one_step_of_colour(height: int, width: int) -> None:
    images = noise(16, 3, height, width)
    boxes = boxes_of(height, width, 16)
    for size in ((28, 28), (32, 32), (16, 24), (96, 96), (224, 224)):
        difference = (crop_together(images, boxes, size).int() - resized_crops(list(images), boxes, size).int()).abs()
        assert difference.max() <= 1, size
        assert (difference > 0).float().mean() < 1e-3, size  # ties of rounding; none on most machines


@together("height, width", [(50, 80), (80, 50), (16, 16), (20, 10), (33, 33)])
def test_evaluation_covers_the_size_and_cuts_the_centre(height: int, width: int) -> None:
    image = noise(3, height, width)
    longer = round(16 * max(height, width) / min(height, width))
    covering = [16, longer] if height < width else [longer, 16]
    expected = transforms.center_crop(
        transforms.resize(image, covering, interpolation=InterpolationMode.BICUBIC, antialias=True), [16, 16]
    )
    assert torch.equal(centre_crops([image], (16, 16))[0], expected)


def test_images_of_the_right_size_are_left_as_they_are() -> None:
    images = noise(4, 3, 8, 8)
    assert torch.equal(centre_crops(images, (8, 8)), images)
    assert torch.equal(centre_crops(list(images), (8, 8)), images)
    assert torch.equal(resize(images[0], (8, 8)), images[0])


def test_half_of_the_images_are_flipped_and_which_changes_with_the_epoch() -> None:
    images = noise(1, 1, 4, 4).expand(2000, 1, 4, 4)
    augmentation = Augmentation(seed=3, crop_scale=None, flip=True)
    first, second = (augmented(augmentation, images, (4, 4), epoch, torch.arange(2000)) for epoch in (0, 1))
    for flipped in (first != images, second != images, first != second):
        assert flipped.flatten(1).any(1).float().mean() == pytest.approx(0.5, abs=0.045)  # four standard errors


def test_what_happens_to_an_image_depends_on_seed_epoch_and_index_alone() -> None:
    images = noise(6, 3, 20, 20)
    index = torch.tensor([7, 3, 11, 0, 2, 5])
    augmentation = Augmentation(seed=0, crop_scale=SCALE, flip=True)
    together = augmented(augmentation, images, (8, 8), 4, index)
    assert torch.equal(together[[4, 1]], augmented(augmentation, images[[4, 1]], (8, 8), 4, index[[4, 1]]))
    assert not torch.equal(together, augmented(augmentation, images, (8, 8), 5, index))
    assert not torch.equal(together, augmented(Augmentation(1, SCALE, True), images, (8, 8), 4, index))
