"""Arguments of classes, read from their source. Nothing is imported: torch would take seconds."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import decode_source, find_spec
from pathlib import Path
from typing import NamedTuple

from semconv.configuration import one_line

PROGRAM = "semconv.commands.train"
TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
DEEPEST = 8  # imports that a name may have passed through


class Argument(NamedTuple):
    """An argument of a class, or an option."""

    name: str
    type: str  # as the source has it; empty: not written
    default: str | None  # as the source has it; None: it has to be given
    text: str  # from the docstring, or the option's help


class Signature(NamedTuple):
    """A class as a configuration sees it."""

    path: str
    text: str  # first line of the docstring
    arguments: Mapping[str, Argument]
    is_open: bool  # takes further arguments by **


@cache
def signature(path: str, below: tuple[str, ...] = ()) -> Signature | None:
    """The signature of a class; None where there is no source of it, or of the class that its constructor comes from.

    Args:
        path: of the class.
        below: paths of classes that inherit from it; none of them is looked into again.

    Raises:
        ValueError: a module cannot be read as Python.
    """
    module, _, name = path.rpartition(".")
    found = _find(module, name)
    if found is None:
        return None
    module, node = found
    own = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    text = ast.get_docstring(node) or ""
    if own is not None:
        texts = {**_described(text), **_described(ast.get_docstring(own) or "")}
        return Signature(path, text.partition("\n")[0], _arguments(own, texts), own.args.kwarg is not None)
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return Signature(path, text.partition("\n")[0], _fields(node, _described(text)), False)
    for base in node.bases:
        above = f"{module}.{base.id}" if isinstance(base, ast.Name) else path
        inherited = signature(above, (*below, path)) if above not in (*below, path) else None
        if inherited is not None:
            return inherited._replace(path=path, text=text.partition("\n")[0] or inherited.text)
    return None


def exists(path: str) -> bool:
    """Tell whether the source of a module has a class.

    Raises:
        ValueError: the module cannot be read as Python.
    """
    module, _, name = path.rpartition(".")
    return _find(module, name) is not None


@cache
def own_options() -> Mapping[str, Argument]:
    """The options that semconv adds to those of LightningCLI, by dotted key."""
    options: dict[str, Argument] = {}
    for call in _calls("add_argument"):
        name = ast.literal_eval(call.args[0]).lstrip("-")
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        kind, default = (ast.unparse(given[key]) if key in given else "" for key in ("type", "default"))
        options[name] = Argument(name, kind, default or "None", ast.literal_eval(given["help"]))
    for prefix, path in own_groups().items():
        found = signature(path)
        assert found is not None, path
        options |= {f"{prefix}.{name}": argument for name, argument in found.arguments.items()}
    return options


@cache
def own_groups() -> Mapping[str, str]:
    """The classes whose arguments are options below a name, such as those of W&B."""
    groups = {}
    for call in _calls("add_class_arguments"):
        found = _find(PROGRAM, ast.unparse(call.args[0]))
        assert found is not None, ast.unparse(call)
        groups[ast.literal_eval(call.args[1])] = f"{found[0]}.{found[1].name}"
    return groups


@cache
def method_arguments(name: str) -> frozenset[str]:
    """The arguments of a method of the trainer, which are options of the subcommand of that name."""
    places = (_find(*place.rsplit(".", 1)) for place in (f"{PROGRAM}.Trainer", TRAINER))
    methods = [
        each for place in places if place for each in place[1].body if isinstance(each, ast.FunctionDef) and each.name == name
    ]
    return frozenset(argument.arg for method in methods[:1] for argument in method.args.args)


def _calls(method: str) -> Iterator[ast.Call]:
    """The calls of a method of the parser, in the file that makes the command line."""
    path = _source(PROGRAM)
    assert path is not None
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node


@cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(decode_source(path.read_bytes()), path)
    except (SyntaxError, ValueError) as error:  # ValueError: it is no UTF-8 text
        raise ValueError(f"{path} is not valid Python: {one_line(error)}: correct it") from error


@cache
def _source(module: str) -> Path | None:
    """The file of a module, which is not imported."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top) if top else None
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        paths = [] if inner or not spec.origin else [Path(spec.origin)]
    else:
        place = Path(next(iter(spec.submodule_search_locations))).joinpath(*inner)
        paths = [place / "__init__.py", place.with_name(f"{place.name}.py")]
    return next((path for path in paths if path.suffix == ".py" and path.is_file()), None)


@cache
def _find(module: str, name: str, depth: int = 0) -> tuple[str, ast.ClassDef] | None:
    """A class by its name in a module, which may import it from another one: the module that defines it, and its definition."""
    path = _source(module)
    if path is None or depth > DEEPEST:
        return None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    body = _tree(path).body
    if found := [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]:
        return module, found[-1]
    for node in body:
        if isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(origin, alias.name, depth + 1)
    return None


def _arguments(function: ast.FunctionDef, texts: Mapping[str, str]) -> dict[str, Argument]:
    given = function.args
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [*[None] * (len(places) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    pairs = list(zip([*places, *given.kwonlyargs], defaults, strict=True))[1:]
    return {each.arg: _argument(each.arg, each.annotation, default, texts) for each, default in pairs}


def _fields(node: ast.ClassDef, texts: Mapping[str, str]) -> dict[str, Argument]:
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return {each.target.id: _argument(each.target.id, each.annotation, each.value, texts) for each in fields}  # type: ignore[union-attr]


def _argument(name: str, annotation: ast.expr | None, default: ast.expr | None, texts: Mapping[str, str]) -> Argument:
    written = None if default is None else re.sub(r"field\(default_factory=(\w+)\)", r"\1()", ast.unparse(default))
    return Argument(name, ast.unparse(annotation) if annotation else "", written, texts.get(name, ""))


def _described(docstring: str) -> dict[str, str]:
    """The texts of `Args:` in a docstring, by argument."""
    _, _, section = f"\n{inspect.cleandoc(docstring)}".partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if start := re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line):
            name, text = start.groups()
            found[name] = text
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found
