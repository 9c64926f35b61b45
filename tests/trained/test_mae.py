import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from semconv.corruption import View
from semconv.decoders import TransformerDecoder
from semconv.encoders import Geometry, MAEViT
from semconv.trained.mae import load_mae_checkpoint
from tests.peers import make_hugging_face, name_as_released, noise_of

GEOMETRY = Geometry(3, (32, 32), 4)
NUM_MASKED = 48


@pytest.fixture(scope="module")
def hugging_face() -> Any:
    return make_hugging_face(GEOMETRY, "test", NUM_MASKED)


@pytest.fixture
def released(hugging_face: Any) -> dict[str, Tensor]:
    return name_as_released(hugging_face)


def save(state: Any, folder: Path, name: str = "weights.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name


def make_model(geometry: Geometry = GEOMETRY) -> tuple[MAEViT, TransformerDecoder]:
    encoder = MAEViT(geometry, "test").eval()
    return encoder, TransformerDecoder(geometry, "test", encoder).eval()


def make_timm(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=10, **options
    )
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval()


def encoder_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(("decoder_", "mask_token"))}


def values(*networks: nn.Module) -> list[Tensor]:
    return [tensor.clone() for network in networks for tensor in network.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}], ids=["bare", "under model"])
def test_a_released_file_predicts_as_hugging_face_does(
    wrap: Any, hugging_face: Any, released: dict[str, Tensor], tmp_path: Path
) -> None:
    encoder, decoder = make_model()
    report = load_mae_checkpoint(save(wrap(released), tmp_path), encoder, decoder)
    generator = torch.Generator().manual_seed(0)
    ranks = torch.rand(2, 64, generator=generator).argsort(1).argsort(1)
    view = View(torch.randn(2, 3, 32, 32, generator=generator), (ranks < NUM_MASKED).view(2, 8, 8), NUM_MASKED)
    with torch.no_grad():
        prediction = decoder(encoder(view), view.mask)
        theirs = hugging_face.unpatchify(hugging_face(view.pixels, noise=noise_of(view.mask)).logits, GEOMETRY.size)
    torch.testing.assert_close(prediction, theirs, rtol=0, atol=1e-5)
    assert sorted(report.loaded) == sorted(released)
    assert report.ignored == report.notes == ()


def test_a_file_without_a_decoder_leaves_it_as_it_is_and_says_so(released: dict[str, Tensor], tmp_path: Path) -> None:
    encoder, decoder = make_model()
    before = values(decoder)
    path = save(encoder_alone(released), tmp_path, "encoder.pth")
    with pytest.warns(UserWarning, match="encoder.pth holds an encoder alone: the decoder stays untrained"):
        report = load_mae_checkpoint(path, encoder, decoder)
    assert same(values(decoder), before)
    assert torch.equal(encoder.norm.weight, released["norm.weight"])
    assert sorted(report.loaded) == sorted(encoder_alone(released))
    assert "the decoder stays untrained" in report.notes[0]


def test_a_decoder_that_is_not_asked_for_is_named_as_ignored(released: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = MAEViT(GEOMETRY, "test", masked="see")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_mae_checkpoint(save(released, tmp_path), encoder)
    assert sorted(report.loaded + report.ignored) == sorted(released)
    assert set(report.loaded) == encoder_alone(released).keys()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_timms_gives_timms_features(suffix: str, tmp_path: Path) -> None:
    theirs = make_timm(global_pool="token")
    path = tmp_path / f"weights.{suffix}"
    save_file(theirs.state_dict(), path) if suffix == "safetensors" else torch.save(theirs.state_dict(), path)
    encoder = MAEViT(GEOMETRY, "test", masked="see").eval()
    report = load_mae_checkpoint(path, encoder)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoding = encoder(View(pixels, torch.zeros(2, 8, 8, dtype=torch.bool), 0))
        expected = theirs.forward_features(pixels)  # type: ignore[operator]
    assert encoding.prefix is not None
    features = torch.cat([encoding.prefix, encoding.features.flatten(2).mT], dim=1)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    assert report.ignored == ("head.bias", "head.weight")
    assert report.notes == ("pos_embed in the file is not MAE's fixed table, but was learned: it is loaded as it is",)


def test_fixed_positions_of_another_grid_make_way_for_our_own(released: dict[str, Tensor], tmp_path: Path) -> None:
    for size in ((16, 24), (16, 64)):  # the second has as many patches as the file, in other places
        encoder, decoder = make_model(Geometry(3, size, 4))
        expected = [encoder.pos_embed.clone(), decoder.pos_embed.clone()]
        report = load_mae_checkpoint(save(released, tmp_path), encoder, decoder)
        assert torch.equal(encoder.pos_embed, expected[0])
        assert torch.equal(decoder.pos_embed, expected[1])
        assert torch.equal(encoder.cls_token, released["cls_token"])
        kept = "in the file is the fixed table of 8 x 8 patches: the model's own, of its grid, is kept"
        assert report.notes == (f"pos_embed {kept}", f"decoder_pos_embed {kept}")


def test_half_precision_files_are_read(released: dict[str, Tensor], tmp_path: Path) -> None:
    encoder, decoder = make_model()
    report = load_mae_checkpoint(save({name: tensor.half() for name, tensor in released.items()}, tmp_path), encoder, decoder)
    assert report.notes == ()
    assert encoder.norm.weight.dtype == torch.float32
    torch.testing.assert_close(encoder.norm.weight, released["norm.weight"], rtol=1e-3, atol=0)


def test_files_of_the_releases_own_training_are_read(released: dict[str, Tensor], tmp_path: Path) -> None:
    content = {"model": released, "epoch": 3, "args": argparse.Namespace(mask_ratio=0.75), "optimizer": {"state": {}}}
    encoder, decoder = make_model()
    load_mae_checkpoint(save(content, tmp_path), encoder, decoder)
    assert torch.equal(encoder.norm.weight, released["norm.weight"])


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_refused_and_not_run(released: dict[str, Tensor], tmp_path: Path) -> None:
    path = save({"model": released, "extra": Attack(tmp_path / "harm")}, tmp_path)
    with pytest.raises(ValueError, match="code, which is never run"):
        load_mae_checkpoint(path, *make_model())
    assert not (tmp_path / "harm").exists()


WRONG: dict[str, tuple[Any, str]] = {
    "other size": (
        lambda state: name_as_released(make_hugging_face(GEOMETRY, "tiny", NUM_MASKED)),
        "has no place for .* and 95 more; build the model as the file's was: size tiny, patches of 4 pixels",
    ),
    "other width": (
        lambda state: state | {"cls_token": torch.zeros(1, 1, 32)},
        r"cls_token is 1 x 1 x 32 there and 1 x 1 x 64 here; build the model as the file's was",
    ),
    "other patch": (
        lambda state: name_as_released(make_hugging_face(Geometry(3, (64, 64), 8), "test", NUM_MASKED)),
        "decoder_pred.bias is 192 there and 48 here; .*: size test, patches of 8 pixels, images of 3 channels and 64 pixels a side",
    ),
    "learned positions of another grid": (
        lambda state: state | {"pos_embed": torch.randn(1, 50, 64)},
        "pos_embed is 1 x 50 x 64 there and 1 x 65 x 64 here; .* 28 pixels a side",
    ),
    "other decoder": (
        lambda state: state | {"decoder_pred.weight": torch.zeros(12, 64)},
        "decoder_pred.weight is 12 x 64 there and 48 x 64 here",
    ),
    "missing tensor": (
        lambda state: {name: tensor for name, tensor in state.items() if name != "blocks.2.mlp.fc1.bias"},
        "it lacks blocks.2.mlp.fc1.bias; build",
    ),
    "half a decoder": (
        lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("decoder_pred")},
        "it lacks decoder_pred.bias and 1 more; build",
    ),
    "unknown tensor": (
        lambda state: state | {"blocks.0.ls1.gamma": torch.ones(64)},
        "the model has no place for its blocks.0.ls1.gamma; build",
    ),
    "average pooling": (
        lambda state: make_timm(global_pool="avg").state_dict(),
        r"it lacks norm.bias and 1 more; .* average pooling \(fc_norm\), which MAE's has not",
    ),
    "no vision transformer": (lambda state: {"conv1.weight": torch.zeros(3)}, "this one has no patch_embed.proj.weight"),
    "no names": (lambda state: [torch.zeros(3)], "holds no tensors by name"),
    "no tensors": (lambda state: {"model": 3}, "holds no tensors by name"),
}


@pytest.mark.filterwarnings("ignore:.*holds an encoder alone")
@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_one_line_and_changes_nothing(
    case: str, released: dict[str, Tensor], tmp_path: Path
) -> None:
    spoil, message = WRONG[case]
    encoder, decoder = make_model()
    before = values(encoder, decoder)
    with pytest.raises(ValueError, match=message) as caught:
        load_mae_checkpoint(save(spoil(released), tmp_path, "w.pth"), encoder, decoder)
    assert "\n" not in str(caught.value)
    assert same(values(encoder, decoder), before)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", bytes(1000)])
def test_damaged_files_are_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: it is damaged, or holds more than tensors"):
        load_mae_checkpoint(tmp_path / name, *make_model())


def test_a_cut_off_file_is_refused(released: dict[str, Tensor], tmp_path: Path) -> None:
    path, model = save(released, tmp_path), make_model()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="it is damaged"):
        load_mae_checkpoint(path, *model)
    torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it is damaged"):
            load_mae_checkpoint(path, *model)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*absent.pth$"):
        load_mae_checkpoint(tmp_path / "absent.pth", *make_model())


def test_encoders_that_treat_masked_patches_otherwise_are_refused(released: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(released, tmp_path)
    token, see = (MAEViT(GEOMETRY, "test", masked=masked) for masked in ("token", "see"))
    with pytest.raises(ValueError, match="this one has masked=token: build it with masked=drop"):
        load_mae_checkpoint(path, token)
    with pytest.raises(ValueError, match="this one has masked=see"):
        load_mae_checkpoint(path, see, TransformerDecoder(GEOMETRY, "test", see))
