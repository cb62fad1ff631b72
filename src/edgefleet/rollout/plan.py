"""Planning: may this rollout be, and what is it then? Raises a typed error, changes nothing."""

import math
from collections.abc import Collection, Iterable

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, Status, WaveSpec
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.fleet import Fleet
from edgefleet.rollout.limits import LABEL_KEYS_NAMED, WAVES
from edgefleet.rollout.scope import Scope
from edgefleet.rollout.selector import Selector, parse
from edgefleet.rollout.state import TAKEN_BACK, RolloutState, WaveState
from edgefleet.rollout.step import Opening
from edgefleet.rollout.track import Published, Track


def check_waves(waves: tuple[WaveSpec, ...]) -> None:
    """1 to 20 waves, each above 0, up to 100 and larger than the last."""
    if not 1 <= len(waves) <= WAVES:
        raise OperatorError("waves_invalid", f"There are {len(waves)} waves.", field="waves")
    last = 0.0
    for index, wave in enumerate(waves):
        field = f"waves[{index}].percent"
        if not 0 < wave.percent <= 100:
            raise OperatorError(
                "percent_out_of_range", f"{wave.percent:g} % is no share of a fleet.", field=field
            )
        if wave.percent <= last:
            raise OperatorError(
                "percent_not_rising", f"{wave.percent:g} % after {last:g} %.", field=field
            )
        last = wave.percent


def check_gate(gate: GateSpec) -> None:
    """Every number of the gate within its range. Raises ``gate_invalid`` naming the first bad."""
    _in_range("max_error_rate", gate.max_error_rate, 0, 1, "from 0 to 1 (0.05 is 5 %)")
    _in_range("min_sample", gate.min_sample, 1, math.inf, "1 device or more")
    _in_range("soak_s", gate.soak_s, 0, math.inf, "seconds, 0 or more")
    _in_range("confirm_after_s", gate.confirm_after_s, 0, math.inf, "seconds, 0 or more")
    _in_range("silence_s", gate.silence_s, 1e-3, math.inf, "seconds, above 0")
    _in_range("patience_s", gate.patience_s, 0, math.inf, "seconds, 0 or more")
    _in_range("max_confidence_drop", gate.max_confidence_drop, 0, 1, "from 0 to 1")
    _in_range("min_requests", gate.min_requests, 1, math.inf, "1 request or more")


def _in_range(name: str, value: float, low: float, high: float, wanted: str) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise OperatorError("gate_invalid", f"{value!r} is not {wanted}.", field=f"gate.{name}")


def check_selector(text: str, fleet: Fleet) -> Selector:
    """Parse, and refuse a key that no device carries: it is most likely a slip."""
    selector = parse(text)
    known = fleet.label_keys
    for key in selector.keys:
        if key not in known:
            named = ", ".join(sorted(known)[:LABEL_KEYS_NAMED]) or "none"
            raise OperatorError(
                "selector_key_unknown",
                f"No device carries the label {key!r}; known labels: {named}.",
                field="selector",
            )
    return selector


def profiles_of(release: Published) -> frozenset[str]:
    """The profiles that the release has a variant for."""
    return frozenset(variant.profile for variant in release.manifest.variants)


def check_fleet(fleet: Fleet, selector: Selector, release: Published) -> None:
    """Somebody must be selected, and the release must fit every one of them."""
    selected = fleet.selected(selector)
    if not selected.any():
        raise OperatorError("fleet_empty", "The selector matches no device.", field="selector")
    held = profiles_of(release)
    counts = np.bincount(fleet.profile_ids[selected], minlength=fleet.profile_count)
    missing = {
        fleet.profile_name(number): count
        for number, count in enumerate(counts.tolist())
        if count and fleet.profile_name(number) not in held
    }
    if missing:
        named = ", ".join(f"{name} ({count} devices)" for name, count in sorted(missing.items()))
        raise OperatorError(
            "variant_missing", f"The release has no variant for {named}.", field="release"
        )


def check_free(scope: Scope, others: Iterable[Track], holding: Collection[Status]) -> None:
    """No other rollout on a common device may stand in one of ``holding``."""
    mine = scope.eligible_mask()
    for other in others:
        if other.state.status in holding:
            common = int(np.count_nonzero(mine & other.scope.eligible_mask()))
            if common:
                raise OperatorError(
                    "rollout_overlap",
                    f"Rollout {other.state.id} is {other.state.status} on "
                    f"{common} of these devices.",
                    field="selector",
                )


def check_not_failed_before(scope: Scope, release: Published, others: Iterable[Track]) -> None:
    """What was taken back from any of these devices is not planned for them again."""
    mine = scope.eligible_mask()
    for other in others:
        if other.release.number != release.number or other.state.status not in TAKEN_BACK:
            continue
        if (mine & other.scope.eligible_mask()).any():
            raise OperatorError(
                "release_failed_before",
                f"Release {release.manifest.release} was taken back by rollout "
                f"{other.state.id} ({other.state.reason}).",
                field="release",
            )


def after_all(others: Iterable[Track], now: float) -> float:
    """``now``, or just after the newest rollout when somebody set the clock back since.

    The newest rollout of a device decides: a clock must not make an older one win.
    """
    newest = max((other.state.created_at for other in others), default=-math.inf)
    return max(now, math.nextafter(newest, math.inf))


def planned(
    spec: RolloutSpec, *, rollout_id: str, salt: int, previous: str | None, now: float
) -> RolloutState:
    """The first state of a rollout that was checked."""
    return RolloutState(
        id=rollout_id,
        spec=spec,
        salt=salt,
        previous=previous,
        status=Status.PLANNED,
        reason="planned",
        text="Planned; it begins when it is started.",
        since=now,
        created_at=now,
        waves=tuple(WaveState(percent=wave.percent) for wave in spec.waves),
    )


def previous_release(scope: Scope, fleet: Fleet, desired: Desired, model: str) -> str | None:
    """The release of this model that most of the eligible devices should run now."""
    counts = np.bincount(desired.numbers(scope.eligible_rows()), minlength=1)
    for number in np.argsort(-counts, kind="stable").tolist():
        named = fleet.release_named(number)
        if named is not None and named[0] == model and counts[number]:
            return named[1]
    return None


def next_openings(track: Track, fleet: Fleet) -> tuple[Opening, ...]:
    """The waves to open next: all that have the same cut as the open one, and the one after.

    A wave with the same cut has nothing to learn that is not known. Empty after the last wave.
    """
    state = track.state
    openings: list[Opening] = []
    last = state.open_wave
    count = None if last is None else last.cut
    floor = 0 if last is None or last.threshold is None else int(last.threshold, 16)
    for wave in state.waves[0 if state.wave is None else state.wave + 1 :]:
        made = track.scope.cut(wave.percent, floor=floor)
        openings.append(
            Opening(
                cut=made.count,
                threshold=f"{made.threshold:016x}",
                population=made.population,
                rows=len(fleet),
            )
        )
        if made.count != count:
            break
        floor = made.threshold
    return tuple(openings)


def leads_on(track: Track, openings: tuple[Opening, ...]) -> bool:
    """True when there is a wave among ``openings`` that is larger than the open one."""
    last = track.state.open_wave
    return bool(openings) and (last is None or openings[-1].cut != last.cut)


def check_newest(track: Track, others: Iterable[Track]) -> None:
    """A halted rollout is over once a newer one completed on any of its devices."""
    mine = track.scope.eligible_mask()
    for other in others:
        newer = other.state.created_at > track.state.created_at
        completed = newer and other.state.status is Status.COMPLETED
        if completed and (mine & other.scope.eligible_mask()).any():
            raise OperatorError(
                "verb_not_now",
                f"Rollout {other.state.id} has completed on its devices since: plan anew.",
            )
