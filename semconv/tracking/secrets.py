"""Redaction of keys and passwords in the records of a run."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

WORDS = {
    *("KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PWD", "PASS", "PASSPHRASE", "PAT"),
    *("CREDENTIAL", "CREDENTIALS", "AUTH", "AUTHORIZATION", "COOKIE", "BEARER", "SIGNATURE", "SIG"),
}
ENDINGS = ("PASSWORD", "PASSWD", "TOKEN", "SECRET", "APIKEY")  # of words such as PGPASSWORD
NOT_SECRET = {"PWD", "OLDPWD"}  # a shell's working folders
# characters of a value; one that is shorter than SURE is replaced as a whole word alone, and not in a configuration, where it is
# rather a choice, such as test or auto, without which the run could not be opened again
SHORTEST, SURE = 4, 8
# in a path, an address has one slash; other text with one, such as host:/folder, has no login of two parts
URL_LOGIN = re.compile(r"(?:(?<=://)|(?<=https:/)|(?<=http:/)|(?<=:/)(?=[^/\s:@]+:))[^/\s\"'?#]+(?=@)")
# GitHub, GitLab, Slack, Amazon, Google; Hugging Face, OpenAI and others, npm, PyPI and W&B, whose prefix a name may have too
KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:gh[oprsu]_|github_pat_|glpat-|xox[a-z]-)[\w-]{8,}|A[KS]IA[A-Z0-9]{12,}|AIza[\w-]{20,}"
    r"|(?:hf_|sk-|npm_|pypi-|wandb_v\d_)(?=[\w-]*\d)[\w-]{16,})"
)
HEADER = re.compile(
    r"\b(bearer|basic|digest|token)(\s+)(?=[^\s\"']*[\d._=+/-])[^\s\"',;]{8,}", re.IGNORECASE
)  # a key has more than letters
BEGINS = re.compile(r"(?:^|[:=,\"'(\[{])\s*$")  # before a header in an entry of a configuration
ASSIGNED = re.compile(r"(?P<name>[\w.-]+)(?P<sign>=|:\s+)(?P<value>[^\s&;,\"']+)")
ENTRY = re.compile(r"(?P<start>([\"'])(?P<name>[\w.-]+)\2\s*:\s*)([\"'])(?P<value>(?:\\.|(?!\4).)*)\4")  # JSON, a printed dict
TAKEN = re.compile(r"(?P<option>--[\w.-]+)(?P<space>\s+)(?=\S*\d)(?P<value>[^\s\"',;]{8,})")  # by an option, as the next word
OPTION = re.compile(r"(?P<option>--?[\w.-]+)=(?P<value>.+)", re.DOTALL)


@cache
def is_secret_name(name: str) -> bool:
    """Tell by its name whether an environment variable or option holds a secret: a word is KEY, TOKEN, PASSWORD or similar."""
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    return name not in NOT_SECRET and any(word.upper() in WORDS or word.upper().endswith(ENDINGS) for word in words)


def refuse_secret_interpolation(text: str, where: str) -> None:
    """Refuse a configuration that reads a secret from the environment, because a run saves its configuration.

    Raises:
        ValueError: the text holds `${oc.env:NAME}` with a NAME such as WANDB_API_KEY.
    """
    for name in re.findall(r"oc\.env\s*:\s*['\"]?([A-Za-z_]\w*)", text):
        if is_secret_name(name):
            raise ValueError(
                f"{where} reads {name} from the environment, which would be written into config.yaml: "
                "leave it out; libraries that need a key read it from the environment themselves"
            )


def redact(value: Any) -> Any:
    """Replace secrets in a configuration, command line or text by `<redacted>` or `<redacted:NAME>`.

    Secrets are the values of environment variables, options, entries and parts of an address with a secret name, the login in an
    address, keys of HTTP headers, and tokens with a well-known prefix.

    Args:
        value: text, or mappings and sequences with text; other values are returned unchanged.
    """
    return _redact(value, is_entry=False)


def _redact(value: Any, is_entry: bool) -> Any:
    if isinstance(value, str):
        return _redact_text(value, is_entry)
    if isinstance(value, Mapping):
        secret = {key for key, part in value.items() if isinstance(part, str) and part and _is_secret_key(key)}
        return {key: "<redacted>" if key in secret else _redact(part, is_entry=True) for key, part in value.items()}
    if isinstance(value, Sequence):
        parts = [_redact(part, is_entry) for part in value]
        # an option and its value as two words
        return [
            "<redacted>" if i and isinstance(value[i - 1], str) and _takes_secret(value[i - 1]) and isinstance(part, str) else part
            for i, part in enumerate(parts)
        ]
    return value


def _redact_text(text: str, is_entry: bool) -> str:
    """Redact text; in an entry of a configuration, words within a path, such as `Basic shapes/png` and `key=1`, are no secrets."""
    for name, secret in sorted(os.environ.items(), key=lambda pair: -len(pair[1])):  # one secret may be part of another
        if len(secret) >= (SURE if is_entry else SHORTEST) and is_secret_name(name):
            whole = re.escape(secret) if len(secret) >= SURE else rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(whole, f"<redacted:{name}>", text)
    text = KNOWN.sub("<redacted>", text)
    found = OPTION.fullmatch(text)
    if found and is_secret_name(found["option"]):
        return f"{found['option']}=<redacted>"
    text = URL_LOGIN.sub("<redacted>", text)
    text = HEADER.sub(
        lambda found: (
            found[0] if is_entry and not BEGINS.search(found.string[: found.start()]) else f"{found[1]}{found[2]}<redacted>"
        ),
        text,
    )
    text = ENTRY.sub(lambda found: f'{found["start"]}"<redacted>"' if _is_secret_key(found["name"]) else found[0], text)
    text = TAKEN.sub(
        lambda found: f"{found['option']}{found['space']}<redacted>" if is_secret_name(found["option"]) else found[0], text
    )
    return ASSIGNED.sub(
        lambda found: found[0] if is_entry and found.string[: found.start()].endswith("/") else _redact_assigned(found), text
    )


def _is_secret_key(name: object) -> bool:
    """True for the name of a secret in a mapping; `key` alone names a key of a configuration there."""
    return isinstance(name, str) and name != "key" and is_secret_name(name)


def _redact_assigned(found: re.Match[str]) -> str:
    name = found["name"]
    # "X-Api-Key: v" is a header; "the protocol has no such key: give another" is a sentence
    assigned = found["sign"] == "=" or ("-" in name and name[0] != "-") or name.lower() in ("authorization", "cookie")
    secret = assigned and is_secret_name(name) and not found["value"].startswith("<redacted")
    return f"{found['name']}{found['sign']}<redacted>" if secret else found[0]


def _takes_secret(word: str) -> bool:
    return word.startswith("--") and "=" not in word and is_secret_name(word)
