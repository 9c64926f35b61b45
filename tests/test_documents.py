"""Every command and every piece of code in the documents is tried, and what they list is what there is.

How each kind of command is tried, and which cannot be run in a test, is said in tests/documents.py.
"""

import ast
import pkgutil
import re
import sys
from types import ModuleType

import pytest
import yaml

from semconv import indicators, mechanisms
from semconv.commands.train import parse
from semconv.sweeping.file import read_sweep
from semconv.version import __version__
from tests.documents import DOCUMENTS, ROOT, Desk, Document, draw_images
from tests.experiments import NAMES, arguments, keys

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data sets of the places that the documents name."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("data")
    for name, test in (("photos", "test"), ("data/imagenette96", "val"), ("path/to/folder", "test")):
        images = draw_images(folder / name, "train", 30)
        draw_images(folder / name, test, 5)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"img": images, "label": [i % 2 for i in range(30)]}, features=features)
    (folder / "data" / "cifar10").mkdir()
    for split in ("train", "test"):
        table.to_parquet(folder / "data" / "cifar10" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def shared():
    return {}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def desk(tmp_path, monkeypatch, data, shared, store):
    """A folder in which a reader tries a document: with data, and without the project."""
    for place in data.iterdir():
        (tmp_path / place.name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the commands add the folder
    monkeypatch.delenv("SEMCONV_DATA", raising=False)
    yield Desk(tmp_path, shared, store, monkeypatch)
    sys.modules.pop("mine", None)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # of wandb-workspaces
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_snippet_of_a_document_works(name, desk):
    document = Document(name)
    for file, text in document.files.items():
        (desk.folder / file).write_text(text, encoding="utf-8")
    for command in document.commands:
        desk.follow(command)
    scope: dict = {}
    for snippet in document.snippets:
        exec(snippet, scope)


def test_a_file_of_the_repository_stands_in_a_document_as_it_is():
    shown = re.findall(
        r"^`([\w./-]+/[\w.-]+\.yaml)`:\n\n```yaml\n(.*?)^```$", Document("docs/sweeps.md").text, flags=re.DOTALL | re.MULTILINE
    )
    assert [name for name, _ in shown] == ["sweeps/studies/demo.yaml"]
    for name, text in shown:
        assert (ROOT / name).read_text().endswith(text)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    """Those of docs/ are for mkdocs, which checks anchors, too."""
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", Document(name).text)
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).is_file()] == []


def test_names_in_the_text_are_those_of_the_code():
    options = {key for name in ("cnn_channels", "any_cnn/resnet18") for key in keys(parse(arguments(name)))}
    for name in set.union(*(Document(name).names for name in DOCUMENTS)):
        if re.fullmatch(r"semconv(\.\w+)+", name):
            assert pkgutil.resolve_name(name), name
        elif option := re.fullmatch(r"(?:--)?((?:data|model|trainer|wandb)(?:\.\w+)+)(?: \S+)?", name):
            assert option[1].removesuffix(".help") in options, name
        elif re.fullmatch(r"(experiments|sweeps|examples|benchmarks|tests|docs)/[\w/.]*", name):
            assert (ROOT / name).exists(), name


def test_pages_list_what_there_is():
    def exported(module: ModuleType) -> set[str]:
        return {name for name in module.__all__ if isinstance(getattr(module, name), type)}

    assert set(Document("docs/mechanisms.md").table("mechanism", "x̃")) == exported(mechanisms) - {"Mechanism"}
    parts = {name for name in exported(indicators) if issubclass(getattr(indicators, name), indicators.Indicator)}
    assert set(Document("docs/indicators.md").table("indicator", "value")) == parts - {"Indicator"}
    assert set(Document("docs/concepts.md").table("file in `experiments/`")) == set(NAMES)
    sweeps = {path.name: read_sweep(path) for path in (ROOT / "sweeps").glob("*.yaml")}
    rows = Document("docs/sweeps.md").table("file in `sweeps/`").items()
    listed: dict[str, int] = {}
    for names, (_, runs) in rows:  # one number for all names, or one for each
        several, counts = names.split(", "), runs.split(", ")
        counts = counts if len(counts) == len(several) else counts[:1] * len(several)
        listed |= {name: int(count.split()[0]) for name, count in zip(several, counts, strict=True)}
    assert listed == {name: len(sweep.grid) or sweep.run_cap for name, sweep in sweeps.items()}


def test_every_test_that_a_page_names_is_there():
    named = [match for name in DOCUMENTS for match in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", Document(name).text)]
    functions = {
        file: {node.name for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
        for file, _ in named
    }
    assert len(named) >= 12
    assert [f"{file}::{test}" for file, test in named if test not in functions[file]] == []


def test_the_readme_says_which_shape_its_code_gives():
    scope: dict = {}
    (snippet,) = Document("README.md").snippets
    exec(snippet, scope)
    assert f"# {' x '.join(map(str, scope['features'].shape))}\n" in snippet


def test_a_release_is_called_the_same_everywhere():
    version, date = re.findall(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert version == citation["version"] == __version__
    assert date == str(citation["date-released"])


def test_continuous_integration_calls_make_alone():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(jobs) == {"lint", "test", "docs"}
    assert [command for command in commands if command.split()[0] != "make" or command.split()[1] not in targets] == []
