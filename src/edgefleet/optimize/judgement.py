"""The proof that a candidate is as good as its baseline, or the reason why it is refused."""

from enum import StrEnum

from edgefleet.optimize.measurement import Measurement
from edgefleet.protocol.wire import Wire


class Refusal(StrEnum):
    """Why a candidate is refused. The first that holds, in this order."""

    NOT_BUILT = "not_built"  # the tool failed; the detail has its words
    NOT_TRAINED = "not_trained"  # the recipe changes weights, and there is no training function
    NOT_MAPPED = "not_mapped"  # no operator runs on the accelerator of the profile
    IDENTICAL = "identical"  # the same bytes as another candidate
    OVER_MEMORY = "over_memory"
    OVER_SIZE = "over_size"
    ACCURACY_LOST = "accuracy_lost"
    ACCURACY_UNPROVEN = "accuracy_unproven"  # the data cannot show that enough is kept
    OVER_LATENCY = "over_latency"
    SLOWER = "slower"  # than the baseline
    NOT_FASTER = "not_faster"  # as slow as the baseline, where another of its size is faster
    NOT_BETTER = "not_better"  # neither smaller nor faster


class Interval(Wire, frozen=True, kw_only=True):
    """A paired interval of a difference, candidate minus baseline."""

    low: float
    high: float
    level: float  # such as 0.95


class AccuracyProof(Wire, frozen=True, kw_only=True):
    """The paired comparison of the metric."""

    baseline: float
    candidate: float
    difference: Interval
    p_value: float | None  # exact McNemar test; None for a metric of the whole set
    smallest_loss: float  # the smallest loss that the data could have shown


class FieldGain(Wire, frozen=True, kw_only=True):
    """The recipe in the fleet, with a release before. ``faster`` replaces that of the bench."""

    release: str
    requests: int
    devices: int  # at least
    latency_us_p50: int
    faster: float


class Judgement(Wire, frozen=True, kw_only=True):
    """The verdict on one candidate. ``refused`` is None if it qualifies. ``text`` is a sentence."""

    candidate: Measurement | None  # None: it was not built
    accuracy: AccuracyProof | None
    smaller: float  # times, of the baseline over the candidate
    faster: float  # times, by p50
    refused: Refusal | None
    text: str
    in_field: FieldGain | None = None  # None: the fleet has not measured the recipe
