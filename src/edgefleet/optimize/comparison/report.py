"""The report of ``edgefleet model compare``."""

from edgefleet.optimize.comparison.compare import FileComparison
from edgefleet.protocol.wire import Wire


class CompareReport(Wire, frozen=True, kw_only=True):
    """The comparisons: one of two files, or one for each profile that both releases have.

    ``interface`` are the changes of the release that clients notice; ``profiles_only_before`` and
    ``profiles_only_after`` have no partner.
    """

    before: str
    after: str
    files: tuple[FileComparison, ...]
    interface: tuple[str, ...] = ()
    profiles_only_before: tuple[str, ...] = ()
    profiles_only_after: tuple[str, ...] = ()
