"""The W&B server and the user's account. Imports neither torch nor W&B."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

HOST = "https://api.wandb.ai"


def server() -> str:
    """The address of the W&B server."""
    return os.environ.get("WANDB_BASE_URL") or HOST


def has_account() -> bool:
    """Tell whether W&B has an account without asking the user: WANDB_API_KEY, or an entry of `wandb login` in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    candidates = [os.environ.get("NETRC"), *(Path.home() / name for name in (".netrc", "_netrc"))]
    for path in (Path(candidate) for candidate in candidates if candidate):
        try:
            if netrc.netrc(str(path)).authenticators(urlsplit(server()).hostname or ""):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
