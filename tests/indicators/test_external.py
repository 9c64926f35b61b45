"""Maps that come with images."""

import pytest
import torch
from torch.nn import functional as F

from semconv.indicators import ExternalMap
from tests.indicators.views import ODD, SIZE, STAGES, assert_close, draw_seen, mean_over_sites, on
from tests.pairwise import together


@pytest.mark.parametrize("sites", STAGES + ODD)
def test_a_site_says_the_share_of_each_class(sites):
    classes = torch.randint(0, 6, (3, 1, *SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    view = draw_seen()._replace(external=classes)
    shares = F.one_hot(classes[:, 0].long(), 6).movedim(3, 1)
    expected = mean_over_sites(shares, *sites)
    assert_close(on(ExternalMap(6), view, sites), expected)
    assert_close(on(ExternalMap(4), view, sites), expected[:, :4])  # classes 4 and 5 do not count


@together("sites", STAGES + ODD)
def test_a_site_says_its_mean_value(sites):
    view = draw_seen()
    assert view.external is not None
    assert_close(on(ExternalMap(), view, sites), mean_over_sites(view.external, *sites))


def test_values_of_other_precisions_are_taken_in_single_precision():
    view = draw_seen()
    assert view.external is not None
    for dtype in (torch.float64, torch.float16):
        found = ExternalMap().observe(view._replace(external=view.external.to(dtype)))
        assert torch.equal(found, view.external.to(dtype).to(torch.float32))
        assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("external", "remedy"), [(None, r"set data\.init_args\.maps"), (torch.zeros(3, 1, *SIZE, dtype=torch.uint8), "num_classes")]
)
def test_what_is_not_there_is_said_in_one_line(external, remedy):
    with pytest.raises(ValueError, match=remedy) as caught:
        on(ExternalMap(), draw_seen()._replace(external=external), (4, 6))
    assert "\n" not in str(caught.value)


def test_maps_of_values_are_no_classes_and_a_map_of_nothing_is_either():
    with pytest.raises(ValueError, match="expects 3 classes, the maps hold values: set its num_classes to null"):
        on(ExternalMap(3), draw_seen()._replace(external=torch.rand(3, 1, *SIZE)), (4, 6))
    nothing = draw_seen()._replace(external=torch.zeros(3, 1, *SIZE, dtype=torch.bool))
    assert on(ExternalMap(3), nothing, (4, 6))[:, 0].eq(1).all()
    assert not on(ExternalMap(), nothing, (4, 6)).any()


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="give at least 1"):
        ExternalMap(0)


def test_a_map_lies_between_0_and_1():
    assert (ExternalMap().low, ExternalMap().high) == (0, 1)
