"""The hub's data folder: its lock, its secrets, and the last address of its hub."""

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from edgefleet.base.durable import replace_file
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import OperatorError
from edgefleet.hub.store.faults import damaged
from edgefleet.protocol.wire import Wire, encode
from edgefleet.security.credentials import SECRET_BYTES, new_token

_PRIVATE: Final = 0o600
_COUNTS: Final = "release_counts.json"
_FIELD: Final = "field_figures.json"
_UNWRITABLE: Final = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class Reachable(Wire, frozen=True, kw_only=True):
    """``hub.json``: where the hub listens or last listened. It contains no secret."""

    url: str
    checkin_url: str
    port: int
    checkin_port: int
    pid: int
    version: str


class DataDir:
    """A folder that one hub at a time has locked."""

    def __init__(self, root: Path) -> None:
        """Create and lock the folder.

        Raises OperatorError ``data_dir_in_use`` or ``setting_invalid``.
        """
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock_file(self.root)
        except OSError as error:
            raise OperatorError(
                "setting_invalid", f"{root} cannot be used: {error.strerror}.", field="data_dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise OperatorError(
                "data_dir_in_use", f"Another hub runs with {root}.", field="data_dir"
            ) from error

    def release(self) -> None:
        """Unlock the folder."""
        os.close(self._lock)

    @property
    def was_used(self) -> bool:
        """True if a hub was ready in this folder: its database is there, or lost."""
        return (self.root / "hub.json").exists()

    @property
    def database(self) -> Path:
        return self.root / "hub.sqlite"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    def operator_token(self, entropy: Entropy) -> str:
        """The operator's token. The first start creates it.

        Raises OperatorError ``data_dir_damaged``.
        """
        return self._secret("operator.token", lambda: new_token(entropy, "efo"))

    def hub_secret(self, entropy: Entropy) -> bytes:
        """The key of the device credentials, in bytes. The first start creates it.

        Raises OperatorError ``data_dir_damaged``.
        """
        text = self._secret("hub.secret", lambda: entropy.token(SECRET_BYTES).hex())
        return _hub_secret(text, self.root / "hub.secret")

    def reachable(self) -> Reachable | None:
        """The addresses of the last hub of this folder. None if there was none."""
        try:
            return msgspec.json.decode((self.root / "hub.json").read_bytes(), type=Reachable)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def announce(self, reachable: Reachable) -> None:
        """Write ``hub.json``. It remains after a stop, so that the next hub reuses the ports.

        On a full or read-only disk the file of the last hub remains.
        """
        try:
            replace_file(self.root / "hub.json", encode(reachable) + b"\n", 0o644)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise

    def release_counts(self) -> bytes:
        """The release counts of the last hub of this folder. Empty if there are none."""
        return self._kept(_COUNTS)

    def keep_release_counts(self, data: bytes) -> None:
        """Keep the release counts for the next hub. They draw a chart: a full disk is ignored."""
        self._keep(_COUNTS, data)

    def field_figures(self) -> bytes:
        """The figures from the field of the last hub. Empty if there are none."""
        return self._kept(_FIELD)

    def keep_field_figures(self, data: bytes) -> None:
        """Keep the figures from the field for the next hub. A full disk is ignored."""
        self._keep(_FIELD, data)

    def _kept(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError:
            return b""

    def _keep(self, name: str, data: bytes) -> None:
        """Replace a file that may be lost, without waiting for the disk."""
        temporary = self.root / f".{name}.new"
        with suppress(OSError):
            temporary.write_bytes(data)
            temporary.replace(self.root / name)

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        path = self.root / name
        if not path.exists():
            replace_file(path, make().encode() + b"\n", _PRIVATE)
        return _read_secret(path)


def _lock_file(root: Path) -> int:
    """An open file to lock: ``hub.lock``, or the folder if the file cannot be created."""
    path = root / "hub.lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
    return os.open(path if path.exists() else root, os.O_RDONLY)


def check_secrets(root: Path) -> list[str]:
    """The faults of the secrets of a data folder, as sentences."""
    faults = list[str]()
    for name in ("operator.token", "hub.secret"):
        path = root / name
        try:
            text = _read_secret(path)
            if name == "hub.secret":
                _hub_secret(text, path)
        except OSError as error:
            faults.append(f"{path} cannot be read: {error.strerror}.")
        except OperatorError as error:
            faults.append(error.message)
    return faults


def _read_secret(path: Path) -> str:
    try:
        text = path.read_bytes().decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise damaged(f"{path} is damaged: it is no ASCII text.") from error
    if not text:
        raise damaged(f"{path} is empty.")
    return text


def _hub_secret(text: str, path: Path) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise damaged(f"{path} is damaged. Every device's credential depends on it.")
    return secret
