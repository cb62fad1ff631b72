"""Latency and memory of releases as the fleet measured them, by hardware class.

The figures of two variants compare if both ran in one class, both served enough requests, and both
were made from a model of one size by the lineage: then their architecture is the same, as far as
the hub can know. Where one is shown to be faster, ``FieldProfile.findings`` says it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edgefleet.base.texts import counted
from edgefleet.protocol.wire import Wire

LEAST_REQUESTS: Final = 200  # of each of two variants that are compared
CLEARLY: Final = 1.25  # times, by p50 and by p10: buckets of latency are an eighth wide
SAME_SOURCE: Final = 1.05  # times: sizes of models before optimising that count as one


class BenchFigures(Wire, frozen=True, kw_only=True):
    """Figures of a variant on the machine of its publisher, by the lineage of its release.

    ``recipe`` is a ``optimize.recipe.Recipe``. ``source_bytes`` is the size of the model before.
    """

    recipe: Mapping[str, object]
    source_bytes: int
    latency_us_p50: float
    latency_us_p10: float
    batch: int
    memory_bytes: int


class FieldVariant(Wire, frozen=True, kw_only=True):
    """The variant of one release in one hardware class, as its devices reported it.

    ``devices`` is a lower bound: at least so many reported. Latencies are those of requests in the
    serving process, in microseconds, with the time in its queue; ``cpu_us`` is the mean CPU time of
    a request. ``memory_mib`` is the most that a device reported. None: not known. ``bench`` is None
    for a release without a lineage of ``model optimize``.
    """

    release: str
    name: str  # of the recipe; without a lineage runtime and precision
    requests: int
    devices: int
    latency_us_p50: int | None
    latency_us_p10: int | None
    cpu_us: float | None
    memory_mib: int
    bench: BenchFigures | None = None

    @property
    def is_enough(self) -> bool:
        """Whether it served enough requests to be compared."""
        return self.requests >= LEAST_REQUESTS and bool(self.latency_us_p50)


class FieldProfile(Wire, frozen=True, kw_only=True):
    """One hardware class. ``variants`` are of the newest release first."""

    profile: str
    variants: tuple[FieldVariant, ...]
    findings: tuple[str, ...] = ()


class ModelField(Wire, frozen=True, kw_only=True):
    """The figures of a model from the fleet: the answer of the hub.

    ``since`` is the time from which on the hub has counted, in seconds since 1970.
    """

    model: str
    since: float
    profiles: tuple[FieldProfile, ...]


def recipe_name(recipe: Mapping[str, object]) -> str:
    """The recipe of a lineage document, such as ``onnx simplify+static_int8``."""
    steps = recipe.get("steps")
    names = [
        str(one.get("step")) for one in (steps if isinstance(steps, list | tuple) else ())
        if isinstance(one, Mapping)
    ]  # fmt: skip
    return f"{recipe.get('runtime', '')} {'+'.join(names) or 'unchanged'}"


def bench_figures(recipe: Mapping[str, object], judgement: object) -> BenchFigures | None:
    """The figures in a judgement of a lineage document. None if it does not have them."""
    try:
        judged = msgspec.convert(judgement, _Judgement)
    except msgspec.ValidationError:
        return None
    made = judged.candidate
    if made is None:
        return None
    return BenchFigures(
        recipe=recipe,
        source_bytes=round(made.size_bytes * judged.smaller),
        latency_us_p50=made.latency.p50_s * 1e6,
        latency_us_p10=made.latency.p10_s * 1e6,
        batch=made.batch,
        memory_bytes=made.peak_memory_bytes,
    )


def _compare(one: FieldVariant, other: FieldVariant) -> bool:
    """Whether both have enough requests and a lineage, and come from models of one size."""
    if one.bench is None or other.bench is None or not (one.is_enough and other.is_enough):
        return False
    sizes = sorted((one.bench.source_bytes, other.bench.source_bytes))
    return sizes[1] <= SAME_SOURCE * sizes[0]


def _times_faster(fast: FieldVariant, slow: FieldVariant) -> float:
    """How many times faster the first is in the field, by p50. 0: not known."""
    if not fast.latency_us_p50 or not slow.latency_us_p50:
        return 0.0
    return slow.latency_us_p50 / fast.latency_us_p50


def _is_clearly_faster(fast: FieldVariant, slow: FieldVariant) -> bool:
    """Whether it is faster by more than the width of a bucket, by p50 and by p10."""
    if not fast.latency_us_p10 or not slow.latency_us_p10:
        return False
    return min(_times_faster(fast, slow), slow.latency_us_p10 / fast.latency_us_p10) >= CLEARLY


def findings(profile: str, variants: Sequence[FieldVariant]) -> tuple[str, ...]:
    """A sentence for each recipe that another is clearly faster than, and why one is left out.

    ``variants`` are of the newest release first. A recipe counts with its newest release.
    """
    newest = _newest_of_each(variants)
    found: list[str] = []
    for slow in newest:
        if not slow.is_enough:
            found.append(
                f"{slow.name} (release {slow.release}): too few requests, {slow.requests:,} of "
                f"{LEAST_REQUESTS:,}."
            )
        elif slow.bench is None and len(newest) > 1:
            found.append(
                f"{slow.name} (release {slow.release}) is not compared: it has no lineage."
            )
        elif best := fastest_beside(slow, newest):
            found.append(faster_text(profile, best, slow))
    return tuple(found)


def fastest_beside(slow: FieldVariant, variants: Sequence[FieldVariant]) -> FieldVariant | None:
    """The fastest of those that are clearly faster than ``slow`` and compare with it."""
    faster = [
        one
        for one in _newest_of_each(variants)
        if not has_recipe_of(one, slow) and _compare(one, slow) and _is_clearly_faster(one, slow)
    ]
    return max(faster, key=lambda one: _times_faster(one, slow), default=None)


def faster_text(profile: str, fast: FieldVariant, slow: FieldVariant) -> str:
    """Such as: On raspberry_pi, B (release 2) was 1.3 times as fast in the field as A ..."""
    text = (
        f"On {profile}, {fast.name} (release {fast.release}) was {_times_faster(fast, slow):.2f} "
        f"times as fast in the field as {slow.name} (release {slow.release}): p50 "
        f"{_ms(fast.latency_us_p50)} of {_counts(fast)}, {_ms(slow.latency_us_p50)} of "
        f"{_counts(slow)}."
    )
    if fast.bench is None or slow.bench is None or fast.bench.batch != slow.bench.batch:
        return text
    ratio = slow.bench.latency_us_p50 / max(fast.bench.latency_us_p50, 1e-3)
    return f"{text} On the bench it was {ratio:.2f} times as fast."


def has_recipe_of(one: FieldVariant, other: FieldVariant) -> bool:
    """Whether both were made by one recipe. Without a lineage their names decide."""
    return _identity(one) == _identity(other)


def _identity(one: FieldVariant) -> str | bytes:
    """The recipe whole: names leave parts out."""
    return one.name if one.bench is None else msgspec.json.encode(one.bench.recipe, order="sorted")


def _newest_of_each(variants: Sequence[FieldVariant]) -> list[FieldVariant]:
    """The newest variant of each recipe that has enough requests, else its newest."""
    found: dict[str | bytes, FieldVariant] = {}
    for one in variants:
        known = found.get(_identity(one))
        if known is None or (not known.is_enough and one.is_enough):
            found[_identity(one)] = one
    return list(found.values())


def _counts(one: FieldVariant) -> str:
    return f"{one.requests:,} requests on at least {counted(one.devices, 'device')}"


def _ms(us: float | None) -> str:
    return "-" if us is None else f"{us / 1e3:.3g} ms"


class _Latency(msgspec.Struct):
    p50_s: float
    p10_s: float


class _Candidate(msgspec.Struct):
    size_bytes: int
    latency: _Latency
    peak_memory_bytes: int
    batch: int


class _Judgement(msgspec.Struct):
    candidate: _Candidate | None
    smaller: float
