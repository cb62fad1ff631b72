"""Where the hub is and how to speak to it: said by the operator, or read from its data folder.

A hub that runs on this machine leaves ``hub.json`` (its addresses) and ``operator.token`` in its
data folder, readable by its owner. What is said wins over what is found.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.hub import HubClient, check_token, check_url
from edgefleet.client.limits import HUB_FILE_BYTES
from edgefleet.protocol.wire import Wire, decode

HUB_FILE: Final = "hub.json"
TOKEN_FILE: Final = "operator.token"  # noqa: S105 - the file's name
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class HubFile(Wire, frozen=True, kw_only=True):
    """What a running hub says of itself in ``hub.json``."""

    url: str
    checkin_url: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is, the operator's token, and a word on where each was found."""

    url: str
    token: str
    url_from: str
    token_from: str

    def client(self) -> HubClient:
        return HubClient(self.url, self.token)


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$EDGEFLEET_DATA_DIR``, else ``edgefleet/hub`` in the user's data folder (XDG)."""
    if said := environ.get("EDGEFLEET_DATA_DIR"):
        return Path(said).expanduser()
    home = environ.get("XDG_DATA_HOME")
    base = Path(home) if home else Path("~/.local/share").expanduser()
    return base / "edgefleet" / "hub"


def discover(
    *,
    url: str | None = None,
    token: str | None = None,
    data_dir: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> HubAccess:
    """Find the hub and its token.

    Each of the two is what is said, else ``EDGEFLEET_HUB`` or ``EDGEFLEET_TOKEN``, else what the
    data folder holds.

    The folder's token goes to the folder's own hub or to this machine, never to another host.
    Raises NetworkError ``unreachable`` when no hub is known, OperatorError ``not_authorized`` when
    no token is, ``setting_invalid`` for what cannot be used.
    """
    folder = data_dir or default_data_dir(environ)
    said_url = url or environ.get("EDGEFLEET_HUB") or None
    said_token = token or environ.get("EDGEFLEET_TOKEN") or None
    found = read_hub_file(folder)
    if said_url:
        address, url_from = check_url(said_url), "said"
    elif found:
        address, url_from = check_url(found.url), str(folder / HUB_FILE)
    else:
        raise NetworkError(
            "unreachable",
            f"No hub runs from the data folder {folder}.",
            field="hub",
            hint="Start one with `edgefleet serve`, or name one: --hub http://host:port.",
        )
    if said_token:
        return HubAccess(address, check_token(said_token.strip()), url_from, "said")
    if not _may_have(address, found):
        raise OperatorError(
            "not_authorized",
            f"No token was given for {address}; the one in {folder} is for this machine's hub.",
            field="token",
            hint="Give that hub's operator token: --token or EDGEFLEET_TOKEN.",
        )
    return HubAccess(address, read_token(folder), url_from, str(folder / TOKEN_FILE))


def read_hub_file(folder: Path) -> HubFile | None:
    """What the hub of this folder says of itself; None when it has never run or was stopped."""
    path = folder / HUB_FILE
    try:
        data = path.read_bytes()[:HUB_FILE_BYTES]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode(data, HubFile, code="setting_invalid")


def read_token(folder: Path) -> str:
    """The operator's token of this folder's hub. Raises OperatorError ``not_authorized``."""
    path = folder / TOKEN_FILE
    try:
        return check_token(path.read_text().strip())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OperatorError(
            "not_authorized",
            f"There is no operator token in {folder}.",
            field="token",
            hint="Give --token or EDGEFLEET_TOKEN, or the hub's folder: --data-dir.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _may_have(address: str, found: HubFile | None) -> bool:
    parts = urlsplit(address)
    return (
        parts.scheme == "unix"
        or parts.hostname in _LOOPBACK
        or (found is not None and found.url.rstrip("/") == address.rstrip("/"))
    )


def _unreadable(path: Path, error: Exception) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        f"{path} cannot be read ({error}).",
        field="data_dir",
        hint="Run as the user that the hub runs as, or give --hub and --token.",
    )
