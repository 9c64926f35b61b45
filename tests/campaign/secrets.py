"""Secrets planted where users have them: no text that is written or sent holds one."""

import string
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from semconv.commands.train import main
from semconv.tracking.secrets import redact
from tests.campaign.trial import Trial
from tests.experiments import arguments
from tests.recording import SHORT

FORMS = (
    "https://{}@example.org/data",
    "https://user:{}@example.org:8080/data",
    "s3://key:{}@bucket/data",
    "https://example.org/data?token={}&x=1",
    "https://example.org/data?x=1&X-Amz-Signature={}",
    "https://example.org/data?sig={}",
    "https://example.org/d?access_token={}#top",
    "Authorization: Bearer {}",
    "authorization: basic {}",
    "proxy-authorization: Digest {}",
    "curl -H 'Bearer {}' example.org",
    "PGPASSWORD={} psql",
    "--db.password={}",
    "--hub-token {}",
    "X-Api-Key: {}",
    "Cookie: {}",
    "{{'api_key': '{}'}}",
    '{{"client_secret": "{}"}}',
)
VARIABLES = (
    "GITHUB_PAT",
    "PGPASSWORD",
    "HF_TOKEN",
    "MY_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "dbPassword",
    "SLACK_APITOKEN",
    "WANDB_API_KEY",
)
LETTERS = string.ascii_letters + string.digits + "-_"


def secrets(random: Random, folder: Path) -> Iterator[Trial]:
    """A secret in a text, in the environment, and now and then in a whole run."""
    for number in range(10**9):
        # of a letter and a digit at least, so that no word of a text is one by chance
        secret = "q7" + "".join(random.choices(LETTERS, k=random.choice((6, 12, 40))))
        if number % 100 == 50:
            yield _whole_run(secret, folder / str(number))
        elif random.random() < 0.7:
            form = random.choice(FORMS)
            yield _judge(redact(form.format(secret)), secret, form)
        else:
            name = random.choice(VARIABLES)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(name, secret)
                yield _judge(redact(f"cannot open {secret} / {secret}: no"), secret, f"value of {name}")


def _whole_run(secret: str, folder: Path) -> Trial:
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES[:-1]:
            patch.setenv(name, f"{secret}{name}")
        patch.setenv("WANDB_MODE", "offline")
        options = [f"--data.root={FORMS[1].format(secret)}", f"--wandb.tags=[Bearer {secret}]", f"--runs={folder}"]
        main(["fit", *arguments("cnn_plain", *SHORT, "--trainer.max_steps=1", *options)])
    held = [path.name for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    return Trial("in a file of a run" if held else "redacted", not held, "a whole run", " ".join(held))


def _judge(text: str, secret: str, case: str) -> Trial:
    return Trial("shown", False, case, text) if secret in text else Trial("redacted", True, case)
