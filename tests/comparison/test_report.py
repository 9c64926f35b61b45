"""The HTML report: what it shows, what it makes of names from outside, and what it says where there is nothing."""

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semconv.comparison.grouping import group
from semconv.comparison.report import sources, strips
from semconv.comparison.report.plots import Dot, Line, Point, dots, lines, scatter
from semconv.comparison.report.sources import curve
from semconv.comparison.report.svg import Scale, labels, scale, tag
from semconv.comparison.runs import find_runs
from semconv.pictures import save_picture, to_picture, to_rgb
from tests.comparison.test_command import run, write_family, write_run
from tests.pairwise import together

TEMPLATE = Path(sources.__file__).with_name("template.html")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
SECTIONS = (
    *("verdicts", "differences", "results", "curves", "costs", "ratios", "probes", "importance", "pictures", "configurations"),
    "environment",
)
EVALUATED = {
    **{f"full/masked_mse/ratio_{ratio:.2f}": ratio for ratio in (0.1, 0.5, 0.95)},
    **{f"probe/{what}/stage_{stage}": 0.5 for what in ("position_r2", "mask_auc", "rgb_r2") for stage in range(3)},
    **{f"untrained/probe/position_r2/stage_{stage}": 0.25 for stage in range(3)},
    "importance/Mask/zeroed": 0.02,
    "importance/Mask/shuffled": 0.03,
    "importance/Mask/another_mask": 0.01,
}
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """A page's elements, and whether each is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)

    def named(self, name):
        return [attributes for other, attributes in self.elements if other == name]


def write_media(folder, shade=0.0, first=3, size=8):
    """Save the test pictures of a run: four images."""
    images = torch.linspace(0, 1, 4 * 3 * size * size).reshape(4, 3, size, size)
    columns = {"original": images, "seen": images * 0.5, "reconstruction": images * 0 + shade, "pasted": (images + shade) / 2}
    pictures = {kind: [to_picture(image) for image in to_rgb(column)] for kind, column in columns.items()}
    for kind, made in pictures.items():
        for number, picture in enumerate(made, start=first):
            save_picture(picture, folder / "media" / "test" / f"{kind}-{number:06d}.png")
    return pictures


def write_rows(folder, values, key="val/masked_mse", step=100):
    rows = [{"step": i, "samples_seen": step * (i + 1), key: value} for i, value in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_whole_family(folder, **settings):
    """A family whose runs have all that a report can show."""
    write_family(folder, **settings)
    write_run(folder / "told-Noise" / "0", "told", 0.8, control="Noise", **settings)  # no part of a verdict
    for path in folder.glob("*/*/summary.json"):
        summary = json.loads(path.read_text())
        evaluated = {key: value for key, value in EVALUATED.items() if "told" in path.parts[-3] or not key.startswith("importance")}
        path.write_text(json.dumps({**summary, **evaluated}))
        write_rows(path.parent, [1.0, 0.9, 0.8])
        write_media(path.parent)
        session = {"git_commit": "0123456789abcdef", "git_dirty": False, "device": "CPU", "versions": {"torch": "2.6"}}
        (path.parent / "environment.json").write_text(json.dumps({"sessions": [session]}))


def make_report(capsys, *arguments):
    folder = arguments[-1]
    out, err, code = run(capsys, *arguments[:-1], "--output", folder)
    assert (err, code) == ("", 0)
    assert out.splitlines()[-1] == str(folder / "comparison.html")
    return (folder / "comparison.html").read_text()


def variants_of(folder):
    return {variant.label: variant for variant in group(find_runs([str(folder)]).runs, "cnn_plain", [], []).variants}


def test_a_report_is_one_file_with_every_section_and_alternatives_to_its_pictures(tmp_path, capsys):
    write_whole_family(tmp_path / "runs")
    text = make_report(capsys, tmp_path / "runs", tmp_path / "out")
    page = Page(text)
    assert [attributes["id"] for attributes in page.named("section")] == list(SECTIONS)
    assert {attributes["href"] for attributes in page.named("a")} == {f"#{name}" for name in SECTIONS}
    assert 'class="missing"' not in text
    # nothing comes from elsewhere
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in page.elements}
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert all(attributes["src"].startswith("data:image/") for attributes in page.named("img"))
    # said in words as well
    drawings = [attributes for attributes in page.named("svg") if attributes.get("role") == "img"]
    assert len(drawings) == len(re.findall("<desc>", text)) >= 14
    assert all(attributes["aria-hidden"] == "true" for attributes in page.named("svg") if "role" not in attributes)
    assert all(attributes["alt"] for attributes in page.named("img"))
    assert len(page.named("figure")) == len(page.named("figcaption"))
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert all(re.search("n = |n is the number of seeds|the first of its seeds", caption) for caption in captions)
    assert all(count == 1 for count in Counter(a["id"] for _, a in page.elements if "id" in a).values())


def test_what_it_says_is_what_the_tables_say(tmp_path, capsys):
    write_whole_family(tmp_path / "runs")
    text = make_report(capsys, tmp_path / "runs", tmp_path / "out")
    assert "<b>beneficial</b> for reconstruction under zero fill: told</li>" in text
    assert "<b>equivalent</b> to plain for representation under zero fill: told</li>" in text
    first, second = re.findall('<p class="headline">(.*?)</p>', text)
    assert first.startswith(
        "told is better than cnn_plain for reconstruction: its masked MSE is lower by 0.1004 (95 % interval 0.1000 to 0.1008"
    )
    assert second == "No variant is shown to be better than cnn_plain for representation: 1 equivalent to it."
    # parameters are matched, so that they are no axis
    costs = text[text.index('id="costs"') : text.index('id="ratios"')]
    assert costs.count("encoder parameters") == 1
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (verdict,) = [each for each in found["verdicts"] if each["endpoint"] == "test/masked_mse"]
    for name, against in verdict["against"].items():
        assert f"<title>{name}: {against['difference']:+.4f} ({against['low']:+.4f} to {against['high']:+.4f})</title>" in text
    assert "0123456789ab</td>" in text
    # baselines: of linear top-1 in words and as a row against the variant, by stage as a line, of pixels as a level
    assert "told: 2G, 0.5000, baseline 0.4000" in text
    assert "8 x 8 thumbnail: 0.4500" in text
    assert "<title>untrained: +0.1000 (+0.09" in text
    assert "told, untrained 0.25" in text
    assert "<title>told, untrained</title>" in text


def test_a_section_without_data_says_which_runs_would_give_it(tmp_path, capsys):
    write_run(tmp_path / "runs" / "told" / "1", "told", 0.5)
    text = make_report(capsys, tmp_path / "runs", tmp_path / "out")
    missing = re.findall('<p class="missing">(.*?)</p>', text)
    for words in (
        "--evaluation full",
        "--evaluation quick",
        "media/test",
        "metrics.jsonl",
        "environment.json",
        "cnn_plain",
    ):
        assert any(words in sentence for sentence in missing), words
    assert [attributes["id"] for attributes in Page(text).named("section")] == list(SECTIONS)


SET = "document.documentElement.setAttribute('data-ran','1')"
PAYLOADS = (f'"><img src=x onerror="{SET}">', f"</title></svg></style><script>{SET}</script>", f"' onload='{SET}' {{{{7*7}}}}")


def write_payloads(folder):
    for seed in range(2):
        for number, payload in enumerate(PAYLOADS):
            part = folder / f"{number}-{seed}"
            told = {f"importance/{payload}/zeroed": 0.1, "full/masked_mse/ratio_0.50": 0.5, "probe/mask_auc/stage_0": 0.5}
            write_run(part, payload, 0.5 + 0.01 * seed, seed, more=told, source=payload)
            write_rows(part, [1.0, 0.5])
            write_media(part)
            session = {"device": payload, "platform": payload, "versions": {payload: payload}, "git_commit": payload}
            (part / "environment.json").write_text(json.dumps({"sessions": [session]}))
        write_run(folder / f"plain-{seed}", "cnn_plain", 0.6, seed, mechanism=payload + "Plain", source=PAYLOADS[0])


@pytest.fixture
def attacked(tmp_path, capsys):
    write_payloads(tmp_path / "runs")
    return make_report(capsys, tmp_path / "runs", "--factor", "data.source", tmp_path / "out")


def test_names_from_outside_are_text(attacked):
    page = Page(attacked)
    assert not page.named("script")
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in page.named("img"))
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    whole = "".join(page.text)
    assert all(payload in whole for payload in PAYLOADS)
    assert "49" not in re.findall(r"onload='.*?' (\S+)", whole)


@in_a_browser
def test_a_browser_runs_nothing_that_a_name_holds(attacked, tmp_path):
    (policy,) = re.findall("<meta http-equiv=.*?>\n", attacked)
    bare = attacked.replace(policy, "")  # escaped well enough without what forbids scripts
    planted = bare.replace("<main>", f"<main><script>{SET}</script>")
    forbidden = attacked.replace("<main>", f"<main><script>{SET}</script>")
    # that the planted one runs shows that the others could be seen to
    for text, ran in ((attacked, False), (bare, False), (planted, True), (forbidden, False)):
        (tmp_path / "page.html").write_text(text)
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
        ]
        done = subprocess.run([*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=120)
        assert "</main>" in done.stdout
        assert ('data-ran="1"' in done.stdout.split("<head>")[0]) is ran


def test_a_curve_is_the_mean_and_the_range_of_its_seeds(tmp_path):
    for seed, values in enumerate(([1.0, 0.6, 0.5, float("nan")], [0.8, 0.8, 0.1, 0.0])):
        write_run(tmp_path / f"{seed}", "told", 0.5, seed)
        write_rows(tmp_path / f"{seed}", values)
    with open(tmp_path / "1" / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "sam')
    (variant,) = variants_of(tmp_path).values()
    found = curve(variant, "val/masked_mse")
    assert found is not None
    assert found.places == [100, 200, 300]  # as far as both go
    assert found.mean == pytest.approx([0.9, 0.7, 0.3])
    assert found.low == pytest.approx([0.8, 0.6, 0.1])
    assert found.high == pytest.approx([1.0, 0.8, 0.5])
    assert found.n == 2
    assert curve(variant, "train/loss") is None


def test_a_seed_that_logs_elsewhere_is_interpolated_and_many_rows_are_averaged(tmp_path):
    for seed, (values, step) in enumerate((([0.0, 4.0], 400), ([1.0, 1.0, 1.0], 300))):
        write_run(tmp_path / "few" / f"{seed}", "told", 0.5, seed)
        write_rows(tmp_path / "few" / f"{seed}", values, step=step)
    found = curve(variants_of(tmp_path / "few")["told"], "val/masked_mse")
    assert found is not None
    assert found.places == [400, 600, 800]
    assert found.mean == pytest.approx([0.5, 1.5, 2.5])
    write_run(tmp_path / "many" / "0", "told", 0.5, 0)
    write_rows(tmp_path / "many" / "0", [float(i % 2) for i in range(1200)])
    found = curve(variants_of(tmp_path / "many")["told"], "val/masked_mse")
    assert found is not None
    assert len(found.places) == 60
    assert found.mean == pytest.approx([0.5] * 60)


def test_strips_hold_the_images_of_the_runs_themselves(tmp_path):
    for name, shade in (("cnn_plain", 0.25), ("told", 0.75)):
        write_run(tmp_path / name, name, 0.5, mechanism="Plain" if name == "cnn_plain" else "Channels")
        pictures = write_media(tmp_path / name, shade)
    write_run(tmp_path / "other", "other", 0.5)
    write_media(tmp_path / "other", size=16)  # other images
    write_run(tmp_path / "none", "none", 0.5)
    variants = variants_of(tmp_path)
    found = strips.gather([variants[name] for name in ("cnn_plain", "told", "other", "none")])
    assert [strip.label for strip in found.strips] == ["original", "encoder input", "cnn_plain", "told"]
    assert (found.numbers, found.left_out) == ([3, 4, 5, 6], ["other", "none"])
    read = strips.read(tmp_path / "told" / "media" / "test")
    assert read is not None
    for kind, images in read.items():
        assert [image.tobytes() for image in images.values()] == [picture.tobytes() for picture in pictures[kind]]
    # a strip is lossless where its images are small
    (strip,) = [strip for strip in found.strips if strip.label == "told"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip.uri.partition(",")[2]))))
    for i, picture in enumerate(pictures["pasted"]):
        assert (drawn[:, i * (8 + strips.GAP) :][:, :8] == np.asarray(picture)).all()


def test_pictures_are_bounded_and_what_is_left_out_is_named(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, name, 0.5)
        write_media(tmp_path / name, size=112)
    variants = list(variants_of(tmp_path).values())
    whole = strips.gather(variants)
    assert all(strip.height == strips.SIDE for strip in whole.strips)
    monkeypatch.setattr(strips, "MOST_BYTES", whole.size - 1)
    found = strips.gather(variants)
    assert (len(found.strips), found.left_out) == (4, ["c"])
    assert found.size == sum(len(strip.uri) for strip in found.strips) <= strips.MOST_BYTES


def damage(path, kind):
    """Make a picture one that cannot be shown."""
    content = path.read_bytes()
    match kind:
        case "missing":
            path.unlink()
        case "no picture":
            path.write_bytes(b"no picture")
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
        case "corrupt":
            path.write_bytes(content.replace(b"IDAT", b"ID\0T"))
        case "corrupt further on":  # found while pixels are read, not when the file is opened
            Image.effect_noise((400, 400), 99).save(path)
            first, second, rest = path.read_bytes().split(b"IDAT", 2)
            path.write_bytes(first + b"IDAT" + second + b"ID\0T" + rest)
        case "of another size":
            Image.new("RGB", (9, 8)).save(path)
        case "without a number":
            path.rename(path.with_name("pasted-one.png"))
        case "a folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize(
    "kind",
    ["missing", "no picture", "cut off", "corrupt", "corrupt further on", "of another size", "without a number", "a folder"],
)
def test_pictures_that_cannot_be_shown_are_left_alone(kind, tmp_path):
    write_media(tmp_path)
    assert strips.read(tmp_path / "media" / "test") is not None
    damage(tmp_path / "media" / "test" / "pasted-000004.png", kind)
    assert strips.read(tmp_path / "media" / "test") is None


def test_pictures_of_more_pixels_than_memory_allows_are_left_alone(tmp_path, monkeypatch):
    write_media(tmp_path, size=8)
    monkeypatch.setattr(strips, "MOST_PIXELS", 63)
    assert strips.read(tmp_path / "media" / "test") is None


def attributes_of(drawing, name, look):
    return [attributes for attributes in Page(str(drawing)).named(name) if look in (attributes.get("class") or "")]


def test_a_dot_stands_where_its_value_is_and_an_interval_that_goes_on_has_an_arrow():
    rows = [Dot("a", 0, 0.1, 0.05, 0.15), Dot("b", 1, -0.1, -9.0, 9.0)]
    drawing = dots("title", [("told", rows, 0.02)], "better by")
    (centre,) = attributes_of(drawing, "circle", "mark")
    first, second = attributes_of(drawing, "line", "reach")
    zero = float(attributes_of(drawing, "line", "axis")[0]["x1"])
    assert (float(first["x1"]) + float(first["x2"])) / 2 == pytest.approx(float(centre["cx"]), abs=0.1)
    # .1 is as far from .05 as .05 is from 0
    assert float(centre["cx"]) - float(first["x1"]) == pytest.approx(float(first["x1"]) - zero, abs=0.1)
    assert len(attributes_of(drawing, "polygon", "mark")) == 3  # two arrows and a square
    assert float(second["x1"]) > 0
    (margin,) = attributes_of(drawing, "rect", "margin")
    assert float(margin["x"]) + float(margin["width"]) / 2 == pytest.approx(zero, abs=0.1)


def test_lines_and_points_stand_where_their_values_are():
    drawing = lines("title", [Line("a", 0, [0, 1, 2], [1, 2, 3], [1, 1.5, 3], [1, 2.5, 3])], "x", "y")
    (line,) = attributes_of(drawing, "polyline", "line")
    points = np.array([pair.split(",") for pair in str(line["points"]).split()], dtype=float)
    assert np.diff(points[:, 0]) == pytest.approx(np.diff(points[:, 0]).mean())
    assert np.diff(points[:, 1]) == pytest.approx(np.diff(points[:, 1]).mean())
    assert points[0, 1] > points[-1, 1]  # up is more
    drawing = lines("title", [Line("a", 0, [0, 1, 2], *[[9, 2, 1]] * 3)], "x", "y", settling=0.1)
    (line,) = attributes_of(drawing, "polyline", "line")
    first, second, _ = (float(pair.partition(",")[2]) for pair in str(line["points"]).split())
    assert first == 28 < second < 40  # on the edge of the frame, which is as high as what comes later needs
    costs = [
        Point(name, i, (cost, cost, cost), (0.5, 0.5, 0.5), name == "b", False)
        for i, (name, cost) in enumerate({"a": 10, "b": 100, "c": 1000}.items())
    ]
    drawing = scatter("title", [costs[0]._replace(y=(1, 1, 1), baseline=0.0), *costs[1:]], "cost", "error", {"level": 0.5})
    (level,) = [each for each in attributes_of(drawing, "line", "guide") if each["y1"] == each["y2"]]
    (start,) = [each for each in attributes_of(drawing, "line", "thin") if each["y1"] == each["y2"] and each["x1"] != each["x2"]]
    (point,) = attributes_of(drawing, "polygon", "mark c1")  # b, at .5
    assert float(str(point["points"]).split()[0].split(",")[1]) == pytest.approx(float(str(level["y1"])) - 0.9 * 4.5, abs=0.1)
    assert float(str(start["y1"])) > float(str(level["y1"]))  # up is more
    drawing = scatter("title", costs, "cost", "error")
    assert "logarithmic" in drawing
    (ring,) = attributes_of(drawing, "circle", "ring")
    (dot,) = attributes_of(drawing, "circle", "mark")
    assert float(ring["cx"]) == pytest.approx((54 + 386) / 2, abs=0.5)  # 100 lies halfway between 10 and 1,000
    assert float(dot["cx"]) < float(ring["cx"])
    assert "b</text>" in drawing


@together("low, high", [(0, 1), (-0.0441, 0.0441), (203000, 203999), (1e-9, 3e-9), (-3, 1000), (5, 5), (0.709, 0.828)])
def test_ticks_are_few_round_and_different(low, high):
    found = scale([low, high], 0, 100)
    ticks = found.ticks()
    assert 3 <= len(ticks) <= 7
    assert all(found.low <= tick <= found.high for tick in ticks)
    assert len({words for _, words in labels(ticks)}) == len(ticks)
    assert found(found.low) == 0
    assert found(found.high) == pytest.approx(100)


def test_logarithmic_ticks_are_powers():
    assert Scale(1e6, 9e10, 0, 1, log=True).ticks() == [1e6, 1e7, 1e8, 1e9, 1e10]
    assert Scale(200, 3000, 0, 1, log=True).ticks() == [200, 500, 1000, 2000]


def test_an_element_is_escaped_in_text_and_attributes():
    assert tag("text", "a < b", tag("b", '"'), title='"&', class_="x", y=None) == (
        '<text title="&#34;&amp;" class="x">a &lt; b<b>&#34;</b></text>'
    )


# what protan, deutan and tritan eyes see of linear RGB (Machado et al., 2009, severity 1)
EYES = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    values = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values):
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = (matrix @ np.clip(values, 0, 1)) / np.array([0.9505, 1, 1.089])
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def test_colours_are_told_apart_by_all_eyes_and_stand_out_from_the_paper():
    blocks = re.findall(r":root \{(.*?)\}", TEMPLATE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        named = dict(re.findall(r"--(\w+): (#\w+)", block))
        series = [named["ink"], *(named[f"c{i}"] for i in range(1, 7))]
        for eye in EYES.values():
            seen = [lab(np.array(eye) @ linear(colour)) for colour in series]
            assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20
        paper = np.dot(linear(named["card"]), [0.2126, 0.7152, 0.0722])
        for colour in series:
            bright = np.dot(linear(colour), [0.2126, 0.7152, 0.0722])
            assert (max(bright, paper) + 0.05) / (min(bright, paper) + 0.05) >= 3
