"""The shadow phase: the candidate answers a share of the live requests, and no caller.

It lies between the proof and the trial. The plan asks for it, the offer takes it to the device, and
the serving process reports what it measured.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgefleet.protocol.wire import Wire

Count = Annotated[int, Meta(ge=0, le=1 << 53)]

PASSED: Final = "shadow_passed"
"""The reason of a start after a shadow phase with all its samples."""
SHORT: Final = "shadow_short"
"""The reason of a start after a shadow phase with too few samples, or with none."""


class Shadow(Wire, frozen=True, kw_only=True):
    """The shadow phase of an offer. A ``share`` of 0 is none.

    The phase ends after ``samples`` requests that both releases answered, or after ``for_s``
    seconds. ``max_disagreement`` is the largest share of them on which the answers may differ, by
    the comparison of the candidate's golden set.
    """

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0  # of the live requests
    samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    for_s: Annotated[float, Meta(gt=0, le=604_800)] = 600.0
    max_disagreement: Annotated[float, Meta(ge=0, le=1)] = 0.2


class ShadowSpec(Shadow, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shadow phase of a plan, on each device before its trial."""

    def offered(self) -> Shadow | None:
        """The phase as the offer has it. None without a shadow phase."""
        return Shadow(**msgspec.structs.asdict(self)) if self.share else None


class ShadowStatus(Wire, frozen=True, kw_only=True):
    """The figures of a candidate since it was loaded as a shadow.

    ``samples`` requests were answered by both releases, or by the active one alone (``errors``).
    ``disagreement`` is the sum over the other samples of 1 minus their agreement, from 0 to 1 each.
    ``skipped`` are chosen requests that the candidate did not get, by why. The confidences are sums
    over the same ``confidence_count`` items of both. ``latency_us_p50`` and ``_p95`` are of the
    candidate's runs, at the lowest priority. ``ended`` is not empty once the candidate answers no
    more: why, in words, with the ``cause``, a ``Reason`` or a code of base.errors. ``fault``: the
    candidate is the cause.
    """

    release: str
    artifact_sha256: str
    ready: bool = False  # it is loaded
    worker: int | None = None  # the pid of its process
    ended: str = ""
    cause: str = ""
    fault: bool = False
    asked: Count = 0  # requests that the active release answered meanwhile
    samples: Count = 0
    errors: Count = 0
    error_example: str = ""
    disagreement: float = 0.0
    difference: str = ""  # an example of answers that differ
    skipped: dict[str, Count] = msgspec.field(default_factory=dict[str, int])
    confidence_count: Count = 0
    confidence_before_sum: float = 0.0  # of the active release
    confidence_sum: float = 0.0  # of the candidate
    cpu_s: float = 0.0  # of the candidate's runs
    latency_us_p50: Count = 0
    latency_us_p95: Count = 0

    @property
    def compared(self) -> int:
        """The samples that the candidate answered."""
        return self.samples - self.errors
