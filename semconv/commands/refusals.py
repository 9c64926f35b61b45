"""What the parser and OmegaConf refuse, in the words of semconv: the whole key, the value, and what fits in its place."""

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar, get_args, get_type_hints

from semconv.commands.arguments import FOLLOWED
from semconv.commands.errors import causes
from semconv.configuration import bare, imported, nearest

LONGEST = 80  # characters of a value in a message
DENIED = re.compile(r"Importing '([\w.]+)' is not allowed")  # by the parser, which may import what the user has named
KEY = re.compile(r'Parser key "([^"]+)"')
NOT_ACCEPTED = re.compile(r"unrecognized arguments: --|(?:Option|Key) ['\"][\w.]+['\"] is not (?:accepted|expected)")
EXPECTED = re.compile(r"Expected (?:an? )?(.+?)(?:\. Got value: .*)?$", re.MULTILINE)
# of Python's int and float
NO_NUMBER = re.compile(
    r"(?:invalid literal for (int)\(\).*?: |could not convert \w+ to float: )'(.*)'|\) argument must be .*, not '"
)
LITERAL = re.compile(r"typing\.Literal\[(.+?)\]")
WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "NoneType": "null",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys to values",
}
# Python's own words, of which a user knows nothing
INTERNALS = re.compile(
    r"has no attribute|NoneType|<class|NestedArg|unhashable|subscriptable|iterable|positional argument|object is not"
)
CLASS = "a class, as its name or as class_path and init_args"
OURS = "semconv list names those of semconv"


def explain(message: str, error: BaseException | None) -> str:
    """What the parser has refused, in one line.

    Args:
        message: the parser's.
        error: with its causes, which are nested as the configuration is.
    """
    said = re.sub(r"^\.(?:run|fit|validate|test|predict)\.", "", _explain(message, error))
    return naming_source(said)


def naming_source(said: str) -> str:
    """What is said of a key, and which other key that one follows, as it is this that a user has set."""
    key, space, rest = said.partition(" ")
    return f"{key}, which follows {FOLLOWED[key]},{space}{rest}" if key in FOLLOWED else said


def _explain(message: str, error: BaseException | None) -> str:
    texts = [message] if error is None else [str(cause) for cause in causes(error)]
    if unknown := next((text for text in reversed(texts) if NOT_ACCEPTED.match(text)), None):
        return _plain(unknown) if unknown.startswith("unrecognized") else _unknown(unknown, texts)
    if found := re.search(r"Subcommand '\w+' does not accept option '(\w+)'", texts[-1]):
        return f"there is no option {found[1]}: a configuration has some such as model and data; --help-all lists the options"
    if found := re.match(r"argument (\S+): expected .*argument", texts[-1]):
        return f"{found[1]} has no value: give one"
    if texts[-1].endswith("are required: model"):
        return "there is no model: name an experiment, such as semconv fit cnn_channels, or a file by -c"
    key, placed = _place(texts)
    last = placed[-1][1] if placed else texts[-1]
    if said := _about_part(key, last):
        return said
    denied = next((text for text in texts if DENIED.search(text)), None)
    if (denied or not LITERAL.search(last)) and (said := _about_class(denied or last)):
        return f"{key}: {said}" if key else said
    if found := re.match(r"the following arguments are required: (.+)", texts[-1]):
        return f"{key}.{found[1]}".strip(".") + " has no value: give one"
    if found := NO_NUMBER.search(last):
        return (
            f"{key} is {_shortened(found[2])}: give {WORDS[found[1] or 'float']}" if found[2] else f"{key} is no number: give one"
        )
    if found := re.search(r"(\S+) does not conform to restriction v(\S+)$", last):
        return f"{key} is {found[1]}: give a number {found[2].replace('>', 'above ').replace('<', 'below ')}"
    value, wanted = _value(last), _wanted(last)
    if wanted is None and key and INTERNALS.search(texts[-1]):
        return f"{key}: give {CLASS}"
    if wanted is None or (value is None and not key):
        return _plain(f"{key}: {texts[-1]}" if key and not KEY.match(texts[-1]) else texts[-1])
    return f"{key or 'the configuration'} is {value}: give {wanted}" if value is not None else f"{key}: give {wanted}"


def _place(texts: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """The whole key that nested messages are about, and the messages that name a part of it."""
    placed = [(found[1], text) for text in texts if (found := KEY.match(text)) and found[1] != "config"]
    return bare(".".join(key for i, (key, _) in enumerate(placed) if i == 0 or key != placed[i - 1][0])), placed


def _unknown(said: str, texts: list[str]) -> str:
    """What is wrong with an argument that its class does not have."""
    key, _ = _place(texts)
    name = re.sub(r".*?['\"]([\w.]+)['\"].*", r"\1", said)
    whole = f"{key}.{bare(name) or name}".strip(".")
    classes = [found[1] for text in texts if (found := re.search(r"Got value: Namespace\(class_path='([\w.]+)'", text))]
    remedy = f"{classes[-1]} has none; name a class that has it" if classes else "--help-all lists the options"
    return f"there is no option {whole}: {remedy}"


def interpolation(error: Exception, given: Mapping[str, Any]) -> str:
    """What OmegaConf could not resolve, in one line.

    Args:
        error: OmegaConf's.
        given: values of files and options by dotted key.
    """
    text = str(error)
    key = bare(str(getattr(error, "full_key", None) or ""))
    key = re.sub(r"^(?:run|fit|validate|test|predict)\.", "", key) or "the configuration"
    key = FOLLOWED.get(key, key)  # an interpolation reaches it only from there
    if found := re.search(r"Environment variable '([^']*)' not found", text):
        return f"{key}: the environment has no variable {found[1]}: set it, or give ${{oc.env:{found[1]},VALUE}} with a default"
    if found := re.search(r"Interpolation key '([^']*)' not found", text):
        return f"{key} refers to ${{{found[1]}}}, and there is no such key: correct it, or write the value"
    if isinstance(error, RecursionError) or "ecursi" in text:
        return f"{key}: an interpolation refers to itself: write the value"
    value = _shortened(str(given.get(key, "an interpolation")))
    return f"{key} is {value}, which cannot be resolved: correct what stands in ${{…}}, or write the value"


def empty_argument(config: Any, prefix: str = "") -> str | None:
    """The first argument of a class that is null and may not be, which jsonargparse takes for not given; None if there is none."""
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    types = _types_of(config["class_path"]) if isinstance(config, Mapping) and "class_path" in config else {}
    for name, kind in types.items():
        if (config.get("init_args") or {}).get(name, ...) is None and not _takes_null(kind):
            return naming_source(f"{bare(f'{prefix}.{name}').strip('.')} is null: give a value, or leave it out")
    return next((found for key, value in pairs if (found := empty_argument(value, f"{prefix}.{key}"))), None)


def _types_of(class_path: Any) -> dict[str, Any]:
    """The types of a class's arguments; none where they are not clear."""
    try:
        return get_type_hints(getattr(imported(str(class_path)), "__init__", None))
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return {}


def _takes_null(kind: Any) -> bool:
    return kind in (Any, None, type(None), object) or any(map(_takes_null, get_args(kind))) or isinstance(kind, TypeVar)


def _wanted(text: str) -> str | None:
    """What the types of a value allow; None where the text does not say."""
    expected = EXPECTED.findall(text)
    choices = [part.strip(" '") for each in expected if (found := LITERAL.fullmatch(each)) for part in found[1].split(",")]
    words = list(dict.fromkeys(filter(None, map(_word, expected))))
    nothing = [word for word in words if word == "null"]
    others = [word for word in words if word != "null"] + (["one of " + ", ".join(dict.fromkeys(choices))] if choices else [])
    if "Not a valid subclass of" in text or "callable class" in text or "given class_path" in text or (nothing and not others):
        others.append(CLASS)
    if "Unable to load config" in text:
        others.append(WORDS["dict"])
    return ", or ".join(others + nothing) or None


def _word(expected: str) -> str:
    """A type in plain words; empty for what is none, or is said otherwise."""
    if found := re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", expected):
        return WORDS.get(found[1], CLASS)
    if found := re.fullmatch(r"tuple with (\d+) elements", expected):
        return f"a list of {found[1]} values"
    other = INTERNALS.search(expected) or re.search(r"Literal|subclass|dict|import path|path but|expected", expected)
    return "" if other or len(expected) > LONGEST else expected


def _about_part(key: str, text: str) -> str | None:
    """What is wrong below a key that takes a mapping of its own, such as a size written out; None if nothing is said of it."""
    if found := re.search(r"the following arguments are required: ([\w.]+)", text):
        return f"{key}.{found[1]} has no value: give one"
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return f"there is no option {key}.{found[1]}.{found[2]}"
    if found := re.search(r'class_path \S+:\s+Parser key "([\w.]+)":\s+(Expected .+)\. Got value: (.+)', text):
        return f"{key}.{found[1]} is {_shortened(found[3])}: give {_wanted(found[2])}"
    return None


def _about_class(text: str) -> str | None:
    """What is wrong with the class that a value names; None if it names none."""
    if found := DENIED.search(text):
        if found[1].partition(".")[0] in sys.stdlib_module_names:
            return f"{found[1]} is of Python's own library, which has no part of a network: give {CLASS}"
        return f"{found[1]} stands in a text, and is not imported: read that code, then write it as class_path and init_args"
    if found := re.search(r"Expected a dot import path string: (.+)", text):
        if not re.fullmatch(r"[A-Za-z_]\w*", found[1]):
            return f"{_shortened(found[1])} is no class: give {CLASS}"
        similar = nearest(found[1], _class_names())
        return f"there is no class {found[1]}: " + (f"did you mean {similar}?" if similar else OURS)
    if found := re.search(r"Unexpected import path format: (?:Unable to serialize instance )?(.+)", text):
        return f"{_shortened(found[1])} is no class: give {CLASS}"
    if found := re.search(r"No module named '([^']+)'", text):
        return f"there is no module {found[1]}: correct the class path, or install the package"
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        similar = nearest(found[2], dir(import_module(found[1])))
        return f"{found[1]} has no {found[2]}: " + (f"did you mean {similar}?" if similar else f"correct the class path; {OURS}")
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", text):
        return f"{found[1]} is no {found[2]}: give a class that is one; {OURS}"
    if found := re.search(r"Expected '([\w.]+)' to be a subclass of <class '(?:[\w.]+\.)?(\w+)'>", text):
        return f"{found[1]} is no {found[2]}: give a class that is one; {OURS}"
    if found := re.search(r"Expected an instantiatable class, but (\S+) is (\w+)", text):
        return f"{found[1]} is {found[2]}: give one of its subclasses; {OURS}"
    return None


def _class_names() -> list[str]:
    from semconv.commands.list import list_classes

    return [path.rpartition(".")[2] for _, rows in list_classes() for path, _ in rows]


def _value(text: str) -> str | None:
    """The value that a message is about; None where it does not say."""
    found = re.findall(r"Given value: (.*)", text) or re.findall(r"(?:Got value:|Unable to load config) (.*)", text)
    if not found:
        return None
    value = found[-1].strip()
    if nested := re.fullmatch(r"NestedArg\(key='([^']*)', val=(.*)\)", value):
        value = f"given {nested[2]} for {nested[1]}"
    elif named := re.match(r"(?:Namespace\(class_path=|\{'class_path': )'([^']+)'", value):
        value = named[1]
    return "null" if value == "None" else _shortened(value.replace("Namespace(", "("))


def _shortened(value: str) -> str:
    value = " ".join(value.split())
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _plain(message: str) -> str:
    """A message of the parser without Python's types, shortened."""
    message = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", message.replace("typing.", ""))
    message = " ".join(message.split())
    return message if len(message) <= 4 * LONGEST else f"{message[: 4 * LONGEST]}…"
