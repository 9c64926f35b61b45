"""Sizes by name and written out."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast, get_args

import pytest
import torch

from semconv.commands.train import main
from semconv.decoders import ConvDecoder, PyramidDecoder, TransformerDecoder
from semconv.encoders import Geometry, MAEViT, SemanticCNN
from semconv.encoders.encoder import count_parameters
from semconv.encoders.sizes import SIZES, CNNSize, DecoderSize, Dimensions, SizeName, ViTSize, dimensions
from semconv.tracking.identity import identity
from tests.experiments import arguments, encoder_factory, parsed
from tests.pairwise import together

GEOMETRY = Geometry(3, (32, 32), 4)
OWN = Dimensions(ViTSize(40, 5, 5), CNNSize((16, 24, 40, 48), (1, 2, 1, 1)), DecoderSize(24, 3, 2, conv_depth=1))
GIVEN = "{vit: {width: 40, depth: 5, heads: 5}, cnn: {widths: [16, 24, 40, 48], depths: [1, 2, 1, 1]}, "
GIVEN += "decoder: {width: 24, depth: 3, heads: 2}}"


def parameters_of(size):
    with torch.device("meta"):
        encoders = [MAEViT(GEOMETRY, size), SemanticCNN(GEOMETRY, size)]
        decoders = [kind(GEOMETRY, size, encoders[1]) for kind in (TransformerDecoder, ConvDecoder, PyramidDecoder)]
        return [count_parameters(network) for network in (*encoders, *decoders)]


def test_named_sizes_grow_and_lie_between_their_neighbours():
    assert tuple(SIZES) == get_args(SizeName)
    counts = [parameters_of(name) for name in ("micro", "test", "mini", "tiny", "small")]
    for below, above in pairwise(counts):
        assert all(smaller < larger for smaller, larger in zip(below, above, strict=True))
    assert counts[0][0] < 60_000
    assert counts[2][0] == pytest.approx(1.2e6, rel=0.01)


@together("name", ("cnn_plain", "cnn_film", "cnn_gradual"))
def test_a_size_written_out_is_matched_as_the_named_ones_are(name):
    with torch.device("meta"):
        own, baseline = count_parameters(encoder_factory(name)(GEOMETRY, OWN)), count_parameters(MAEViT(GEOMETRY, OWN))
    assert abs(own / baseline - 1) <= 0.03


def test_a_size_written_out_builds_what_it_says():
    assert parameters_of(dimensions("test")) == parameters_of("test")
    vit, cnn = cast(Any, MAEViT(GEOMETRY, OWN)), cast(Any, SemanticCNN(GEOMETRY, OWN))
    assert (len(vit.blocks), vit.num_features, vit.blocks[0].attn.num_heads) == (5, 40, 5)
    assert [stage[-1].norm.weight.numel() for stage in cnn.stages] == [16, 24, 40, 48]
    assert (len(ConvDecoder(GEOMETRY, OWN, cnn).blocks), len(TransformerDecoder(GEOMETRY, OWN, cnn).blocks)) == (1, 3)


def test_runs_of_two_sizes_have_two_protocols():
    protocols = [identity(parsed("cnn_plain", f"--model.size={size}"))["protocol"] for size in (GIVEN, GIVEN.replace("40", "48"))]
    assert protocols[0]["model"]["size"]["vit"]["width"] == 40
    assert protocols[0] != protocols[1]


def test_sizes_that_cannot_be_built_are_refused():
    with pytest.raises(ValueError, match=r"size\.vit\.width is 40 with 3 heads: give a width that 4 and the heads divide"):
        dimensions(replace(OWN, vit=ViTSize(40, 5, 3)))
    with pytest.raises(ValueError, match=r"size\.decoder\.width is 26 with 2 heads"):
        dimensions(replace(OWN, decoder=DecoderSize(26, 3, 2)))
    with pytest.raises(ValueError, match=r"size\.cnn\.widths are \[16, 20, 40, 48\]: give multiples of 8"):
        dimensions(replace(OWN, cnn=CNNSize((16, 20, 40, 48), (1, 2, 1, 1))))
    with pytest.raises(ValueError, match="size is tyni: choose among micro, test, mini"):
        dimensions("tyni")  # type: ignore[arg-type]


WRONG = {
    GIVEN.replace("depth: 3", "depth: 0"): "size.decoder has a depth of 0: give 1 block or more",
    GIVEN.replace("16, 24, 40, 48", "64, 96, 160, 200"): "the CNN of this size has 535,176 parameters with the narrowest MLPs",
    GIVEN.replace(", heads: 2", ""): "decoder.heads",
    "tyni": "tyni",
}


def test_the_command_refuses_them_in_one_line(tmp_path, capsys):
    for given, message in WRONG.items():
        with pytest.raises(SystemExit) as stop:
            main(["fit", *arguments("cnn_plain", f"--model.size={given}", f"--runs={tmp_path}")])
        lines = capsys.readouterr().err.splitlines()
        assert (stop.value.code, len(lines)) == (2, 1)
        assert message in lines[0]
