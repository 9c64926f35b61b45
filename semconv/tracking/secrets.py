"""Keys and passwords stay out of what a run records."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {"KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PWD", "PASS", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "AUTH"}
NOT_SECRET = {"PWD", "OLDPWD"}  # a shell's working folders
SHORTEST = 8  # what is shorter would be found in words of any text
URL_LOGIN = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
OPTION = re.compile(r"(?P<option>--?[\w.-]+)=(?P<value>.+)", re.DOTALL)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable or option of this name holds a secret: one of its words is KEY, TOKEN, PASSWORD or alike."""
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    return name not in NOT_SECRET and any(word.upper() in WORDS for word in words)


def refuse_secret_interpolation(text: str, where: str) -> None:
    """Refuse a configuration that would write a secret of the environment into itself.

    Raises:
        ValueError: the text holds `${oc.env:NAME}` with a NAME such as WANDB_API_KEY.
    """
    for name in re.findall(r"oc\.env\s*:\s*['\"]?([A-Za-z_]\w*)", text):
        if is_secret_name(name):
            raise ValueError(
                f"{where} reads {name} from the environment, which would be written into config.yaml: "
                "leave it out; libraries that need a key take it from the environment by themselves"
            )


def redact(value: Any) -> Any:
    """A configuration, command line or text without secrets: `<redacted>` or `<redacted:NAME>` in their place.

    What counts: the values of environment variables and options with a secret name, and the login of an address.

    Args:
        value: text, or mappings and sequences that hold some; everything else comes back as it is.
    """
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        parts = [redact(part) for part in value]
        # an option and its value as two words
        return [
            "<redacted>" if i and isinstance(value[i - 1], str) and _takes_secret(value[i - 1]) and isinstance(part, str) else part
            for i, part in enumerate(parts)
        ]
    return value


def _redact_text(text: str) -> str:
    for name, secret in os.environ.items():
        if is_secret_name(name) and len(secret) >= SHORTEST:
            text = text.replace(secret, f"<redacted:{name}>")
    found = OPTION.fullmatch(text)
    if found and is_secret_name(found["option"]):
        return f"{found['option']}=<redacted>"
    return URL_LOGIN.sub("<redacted>", text)


def _takes_secret(word: str) -> bool:
    return word.startswith("--") and "=" not in word and is_secret_name(word)
