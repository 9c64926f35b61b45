import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semconv import load_run
from semconv.trained.predict import ORDER, predict, read_images, read_mask

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture
def photos(tmp_path):
    """Images of several sizes and formats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, shape in {"wide.png": (20, 60, 3), "tall.jpg": (80, 40, 3), "grey.bmp": (32, 32), "clear.webp": (50, 50, 4)}.items():
        Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image, and not taken for one")
    return folder


def draw(path, *box, size=(32, 32)):
    image = Image.new("L", size)
    image.paste(255, box)
    image.save(path)
    return path


def test_every_image_becomes_a_picture_and_nothing_else_is_written(make_run, semconv, photos, tmp_path):
    run = make_run("mae_vit")
    before = sorted(path for path in tmp_path.rglob("*")), sorted(run.rglob("*"))
    code, out, _ = semconv("predict", run, "--images", photos, "--output", tmp_path / "out")
    assert code == 0
    assert "resized to cover 32 x 32 pixels, and the centre is cut out" in out
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == {f"images/{name}.png" for name in ("wide.png", "tall.jpg", "grey.bmp", "clear.webp")} | {"contact_sheet.png"}
    after = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")), sorted(run.rglob("*"))
    assert before == after
    with Image.open(tmp_path / "out" / "images" / "wide.png.png") as picture:
        assert picture.size == (4 * 100 + 4, 100 + 4 + 36)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.height == 4 * 100 + 4 + 36


def test_a_configuration_chooses_its_test_images_and_a_run_the_users_own(make_run, semconv, photos, tmp_path):
    run, out = make_run("mae_vit"), tmp_path / "out"
    code, said, _ = semconv("predict", "--images", photos, "--output", out, run)  # options may come first
    assert code == 0
    assert f"written to {out}: 4 pictures" in said
    weights = f"--ckpt_path={run}/checkpoints/last.ckpt"
    few = [f"--runs={tmp_path / 'runs'}", "--data.num_test_images=3"]
    code, _, err = semconv("predict", f"--config={run}/config.yaml", weights, *few)
    assert code == 0, err
    assert len(list(tmp_path.glob("runs/*/*/media/predict/*.png"))) == 3


def panels(path):
    """The four panels of a picture, height x width x 3."""
    pixels = np.asarray(Image.open(path))
    return {caption: pixels[22:118, 4 + 100 * i : 100 + 100 * i] for i, caption in enumerate(ORDER)}


def test_a_mask_image_says_what_is_hidden(make_run, semconv, photos, tmp_path):
    mask = draw(tmp_path / "mask.png", 4, 8, 17, 24)  # 13 wide: the last column of pixels is no half of its cell
    code, out, _ = semconv("predict", make_run("mae_vit"), "--images", photos, "--output", tmp_path / "out", "--mask", mask)
    assert code == 0
    assert "12 of 64 cells of 4 x 4 pixels are masked; 16 pixels were snapped" in out
    shown = panels(tmp_path / "out" / "images" / "wide.png.png")
    hidden = np.zeros((32, 32), bool)
    hidden[8:24, 4:16] = True
    hidden = hidden.repeat(3, 0).repeat(3, 1)
    assert (shown["seen"][~hidden] == shown["original"][~hidden]).all()
    assert (shown["pasted"][~hidden] == shown["original"][~hidden]).all()
    assert (shown["pasted"][hidden] == shown["predicted"][hidden]).all()
    assert len(np.unique(shown["seen"][hidden].reshape(-1, 3), axis=0)) == 1  # the fill


def test_the_caption_says_when_the_truth_helps(make_run, photos, monkeypatch, tmp_path):
    notes = []

    def sheet(columns, note):
        notes.append(note)
        return Image.new("RGB", (9, 99))

    monkeypatch.setattr("semconv.trained.predict.contact_sheet", sheet)
    for options in ([], ["--model.objective.normalise=false"]):
        run = load_run(make_run("mae_vit", *options))
        list(predict(run, read_images([photos / "wide.png"], 3, (32, 32)), tmp_path / str(len(notes))))
    assert notes == ["reconstructions have each patch's true mean and contrast"] * 2 + [""] * 2


def test_the_network_is_told_the_crop_of_each_image(make_run, photos, monkeypatch, tmp_path):
    run, batches = load_run(make_run("mae_vit")), []
    task: Any = run.task
    reconstruct = task.reconstruct

    def recorded(batch, moments):
        batches.append(batch)
        return reconstruct(batch, moments)

    monkeypatch.setattr(task, "reconstruct", recorded)
    list(predict(run, read_images([photos / "wide.png", photos / "grey.bmp"], 3, (32, 32)), tmp_path / "out"))
    wide, whole = batches[0].frame.tolist()
    assert wide == pytest.approx([0, 0, 1 / 3, 1, 0], abs=0.02)  # 20 x 60
    assert whole == [0, 0, 1, 1, 0]


def test_masks_follow_the_seed_and_the_masker(make_run, semconv, photos, tmp_path):
    def seen(*options):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert semconv("predict", make_run("mae_vit"), "--images", photos, "--output", tmp_path / "out", *options)[0] == 0
        return panels(tmp_path / "out" / "images" / "tall.jpg.png")["seen"].tobytes()

    assert seen() == seen("--seed", 0)
    assert len({seen(), seen("--seed", 1), seen("--ratio", 0.5), seen("--masker", "grid"), seen("--masker", "centre")}) == 5


def test_another_ratio_keeps_the_masker_of_the_run(make_run, semconv, photos, tmp_path):
    run = make_run("mae_vit", "--model.masker=HalfMasker", "--model.masker.side=left")
    for ratio, columns in ((0.25, 24), (0.75, 72)):
        out = tmp_path / f"{ratio}"
        code, _, err = semconv("predict", run, "--images", photos, "--output", out, "--ratio", str(ratio))
        assert code == 0, err
        parts = panels(out / "images" / "grey.bmp.png")
        same = (parts["seen"] == parts["original"]).all(axis=(0, 2))
        assert same[columns:].all()
        assert not same[:columns].any()


def test_what_cannot_be_read_is_named_or_skipped(make_run, semconv, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    (photos / "cut.jpg").write_bytes((photos / "tall.jpg").read_bytes()[:200])
    (photos / "2024-01-01 12:30.png").write_bytes(b"no image")
    (photos / "folder.png").mkdir()
    (photos / "link.png").symlink_to("nowhere")
    order = ["predict", make_run("mae_vit"), "--images", photos, "--output", tmp_path / "out"]
    code, _, err = semconv(*order)
    assert code == 2
    assert f": {photos}/2024-01-01 12:30.png is not an image; {photos}/bad.png is not an image; {photos}/cut.jpg cannot be" in err
    assert f"; {photos}/folder.png cannot be read (Is a directory); {photos}/link.png cannot be read (No such file" in err
    assert err.endswith("): replace or remove them; or give --on_bad_image skip\n")
    assert not (tmp_path / "out").exists()
    code, _, err = semconv(*order, "--on_bad_image", "skip")
    assert code == 0
    assert err.count("left out:") == 5
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4


BAD = {
    "no folder": (["--images", "{tmp}/nowhere"], "there is no folder"),
    "no image": (["--images", "{tmp}/empty"], "holds no image"),
    "no run": (["{tmp}/empty"], "holds no config.yaml"),
    "output is input": (["--output", "{tmp}/photos"], "is the folder of the images"),
    "output is taken": (["--output", "{tmp}/taken"], "is not empty"),
    "mask of another size": (["--mask", "{tmp}/large.png"], "is 64 x 32 pixels wide and high, and the run's images are 32 x 32"),
    "nothing masked": (["--mask", "{tmp}/black.png"], "masks nothing"),
    "everything masked": (["--mask", "{tmp}/white.png"], "masks everything"),
    "no mask": (["--mask", "{tmp}/nowhere.png"], "there is no mask"),
    "mask is no image": (["--mask", "{tmp}/taken/text.png"], "text.png is not an image: give an image, white where masked"),
    "mask and masker": (["--mask", "{tmp}/black.png", "--ratio", "0.5"], "leave out --masker and --ratio"),
    "no such masker": (["--masker", "clever"], "there is no masker clever"),
    "ratio out of range": (["--ratio", "1.5"], "mask ratio is 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(case, make_run, semconv, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "text.png").write_text("mine")
    draw(tmp_path / "large.png", 0, 0, 9, 9, size=(64, 32))
    draw(tmp_path / "black.png", 0, 0, 1, 1)
    draw(tmp_path / "white.png", 0, 0, 32, 32)
    options, expected = BAD[case]
    given = [option.format(tmp=tmp_path) for option in options]
    run = given.pop(0) if not given[0].startswith("-") else make_run("mae_vit")
    code, _, err = semconv("predict", run, "--images", photos, "--output", tmp_path / "out", *given)
    assert code == 2
    assert err.startswith("semconv: error:")
    assert err.count("\n") == 1
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_a_mask_is_snapped_by_the_greater_half(tmp_path):
    mask, moved = read_mask(draw(tmp_path / "mask.png", 0, 0, 6, 4), (32, 32), 4)
    assert mask.sum() == 2  # a whole cell, and half of the next
    assert moved == 8


def test_masks_of_every_depth_are_white_above_middle_grey(tmp_path):
    share = np.full((32, 32), 0.2)  # dark, and yet above 128 in 16 bits
    share[:4, :8] = 0.8
    Image.fromarray((share * 65535).astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray(share.astype(np.float32)).save(tmp_path / "32.tiff")
    for name in ("16.png", "32.tiff"):
        mask, _ = read_mask(tmp_path / name, (32, 32), 4)
        assert mask.nonzero().tolist() == [[0, 0], [0, 1]]
