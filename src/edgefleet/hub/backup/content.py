"""The devices, releases and artifacts that a database names."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from edgefleet.hub.backup.record import artifacts_of
from edgefleet.hub.store.connection import connect_to_read
from edgefleet.hub.store.faults import readable_rows
from edgefleet.hub.store.reader import Reader
from edgefleet.protocol.release import Artifact
from edgefleet.security.signing import PublicKey, open_manifest


class Content(NamedTuple):
    """Numbers of devices and releases, and all artifacts of the releases, each once."""

    devices: int
    releases: int
    artifacts: tuple[Artifact, ...]


def read_content(database: Path) -> Content:
    """Read the releases and verify their signatures.

    Raises OperatorError ``data_dir_damaged``, or DeviceError as ``connect_to_read`` does.
    """
    with closing(connect_to_read(database)) as connection:
        reader = Reader(connection)
        with readable_rows(reader.check):
            keys = [PublicKey.from_text(key.public_key) for key in reader.load_trust()]
            trusted = {key.keyid: key for key in keys}
            manifests = [
                open_manifest(stored.envelope, trusted).manifest
                for stored in reader.load_releases()
            ]
            (devices,) = connection.execute(
                "SELECT count(*) FROM device WHERE removed_at IS NULL"
            ).fetchone()
    named = {one.sha256: one for manifest in manifests for one in artifacts_of(manifest)}
    return Content(devices, len(manifests), tuple(named.values()))
