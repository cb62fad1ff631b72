"""Messages about the removal of artifacts that are not needed."""

from edgefleet.protocol.wire import Wire


class Collect(Wire, frozen=True, kw_only=True):
    """Remove the artifacts that are not needed. With ``dry_run``, count them only."""

    dry_run: bool = False


class Collected(Wire, frozen=True, kw_only=True):
    """Removed artifacts and parts of interrupted uploads, or those of a dry run.

    ``artifacts`` are at most 100 digests of the removed. ``kept`` artifacts are needed, or younger
    than ``kept_s`` seconds. ``postponed`` is the reason why nothing may be removed now, if any.
    """

    dry_run: bool
    removed: int
    removed_bytes: int
    artifacts: tuple[str, ...] = ()
    kept: int = 0
    kept_bytes: int = 0
    kept_s: float = 0.0
    postponed: str = ""
