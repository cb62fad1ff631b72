"""The place of a hub's files on this machine. Imports the standard library only."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

HUB_FILE: Final = "hub.json"
TOKEN_FILE: Final = "operator.token"  # noqa: S105 - the file's name
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$EDGEFLEET_DATA_DIR``, else ``edgefleet/hub`` in the user's data folder (XDG)."""
    if given := environ.get("EDGEFLEET_DATA_DIR"):
        return Path(given).expanduser()
    home = environ.get("XDG_DATA_HOME")
    base = Path(home) if home else Path("~/.local/share").expanduser()
    return base / "edgefleet" / "hub"


def may_have_token(address: str, hub_url: str | None) -> bool:
    """True if the hub at ``address`` may have the token of the data folder.

    ``hub_url`` is the hub of the folder. None if no hub runs from it.
    """
    parts = urlsplit(address)
    return (
        parts.scheme == "unix"
        or parts.hostname in _LOOPBACK
        or (hub_url is not None and hub_url.rstrip("/") == address.rstrip("/"))
    )
