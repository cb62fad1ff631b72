"""Finds the hub's address and the operator token.

A hub on this machine writes ``hub.json`` (its addresses) and ``operator.token`` into its data
folder, readable by its owner. Given values take precedence over these files.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.hub import HubClient, check_token, check_url
from edgefleet.client.limits import HUB_FILE_BYTES
from edgefleet.client.places import HUB_FILE, TOKEN_FILE, default_data_dir, may_have_token
from edgefleet.protocol.wire import Wire, decode


class HubFile(Wire, frozen=True, kw_only=True):
    """The content of ``hub.json``: addresses and process of a running hub."""

    url: str
    checkin_url: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class HubAccess:
    """The hub's address and the operator's token, with the source of each."""

    url: str
    token: str
    url_from: str
    token_from: str

    def client(self) -> HubClient:
        return HubClient(self.url, self.token)


def discover(
    *,
    url: str | None = None,
    token: str | None = None,
    data_dir: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> HubAccess:
    """Find the hub and its token.

    Each of the two is the argument, else ``EDGEFLEET_HUB`` or ``EDGEFLEET_TOKEN``, else the value
    in the data folder. The folder's token is sent only to the folder's hub or to this machine.

    Raises NetworkError ``unreachable`` if no hub is known, and OperatorError ``unauthenticated`` if
    no token is known or ``setting_invalid`` for an invalid value.
    """
    folder = data_dir or default_data_dir(environ)
    given_url = url or environ.get("EDGEFLEET_HUB") or None
    given_token = token or environ.get("EDGEFLEET_TOKEN") or None
    found = read_hub_file(folder)
    if given_url:
        address, url_from = check_url(given_url), "given"
    elif found:
        address, url_from = check_url(found.url), str(folder / HUB_FILE)
    else:
        raise NetworkError(
            "unreachable",
            f"No hub runs from the data folder {folder}.",
            field="hub",
            hint="Start one with `edgefleet serve`, or name one: --hub http://host:port.",
        )
    if given_token:
        return HubAccess(address, check_token(given_token.strip()), url_from, "given")
    if not may_have_token(address, None if found is None else found.url):
        raise OperatorError(
            "unauthenticated",
            f"No token given for {address}: the token in {folder} is for the hub on this machine.",
            field="token",
            hint="Give the operator token of that hub: --token or EDGEFLEET_TOKEN.",
        )
    return HubAccess(address, read_token(folder), url_from, str(folder / TOKEN_FILE))


def read_hub_file(folder: Path) -> HubFile | None:
    """The ``hub.json`` of this folder. None if no hub runs from it."""
    path = folder / HUB_FILE
    try:
        data = path.read_bytes()[:HUB_FILE_BYTES]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode(data, HubFile, code="setting_invalid")


def read_token(folder: Path) -> str:
    """The operator token in this folder. Raises OperatorError ``unauthenticated``."""
    path = folder / TOKEN_FILE
    try:
        return check_token(path.read_text().strip())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OperatorError(
            "unauthenticated",
            f"There is no operator token in {folder}.",
            field="token",
            hint="Give --token or EDGEFLEET_TOKEN, or the hub's folder: --data-dir.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        f"{path} cannot be read ({error}).",
        field="data_dir",
        hint="Run as the hub's user, or give --hub and --token.",
    )
