"""The stored artifacts that are not needed. A pure function.

A rollout, a slot of a device, a way back and a backup can name only what a published release names,
and a release stays published. So an artifact is needed if a release names it, if a release that
names it is being published, or if it was uploaded a short time ago for a release to come.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from edgefleet.hub.backup.record import artifacts_of
from edgefleet.protocol.release import ReleaseManifest


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A stored artifact. ``used_at`` is when it was uploaded, or a publisher asked for it."""

    digest: str
    size_bytes: int
    used_at: float


def unneeded(
    files: Iterable[StoredFile],
    published: Iterable[ReleaseManifest],
    in_use: Collection[str],
    *,
    now: float,
    kept_s: float,
) -> list[StoredFile]:
    """The files that may be removed, in the order of ``files``.

    ``in_use`` are the digests of releases that are being published. A file is kept for ``kept_s``
    seconds, and as long as ``used_at`` is in the future.
    """
    named = {artifact.sha256 for manifest in published for artifact in artifacts_of(manifest)}
    return [
        file
        for file in files
        if file.digest not in named and file.digest not in in_use and file.used_at < now - kept_s
    ]
