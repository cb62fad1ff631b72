"""Invariants of a fleet, compared with its stored outcomes and with the devices themselves."""

import math
from collections.abc import Iterable

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.device import CheckIn, Offer, Outcome, OutcomeKind
from edgefleet.protocol.rollout import RolloutView, Status
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.testing import FakeFleet
from support.plans import GATE

_EXPOSING = frozenset(
    {
        OutcomeKind.TRIAL_STARTED,
        OutcomeKind.CONFIRMED,
        OutcomeKind.TRIAL_FAILED,
        OutcomeKind.REVERTED,
    }
)
_ENDED_BADLY = frozenset({OutcomeKind.TRIAL_FAILED, OutcomeKind.REFUSED, OutcomeKind.REVERTED})


class BrokenError(AssertionError):
    """Something that must always hold does not."""


class Invariants:
    """Checks of one fleet. A check that does not hold raises BrokenError."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.fleet = fleet
        self._heard_at: dict[int, float] = {}
        self._were_silent: set[tuple[int, str]] = set()  # row and id of what it reported at last
        self._ended_badly: dict[tuple[int, str], list[Outcome]] = {}  # by row and release
        self._cuts: set[tuple[str, str]] = set()  # rollout and threshold of each cut
        self._read = 0  # outcomes of the fleet that are in ``_ended_badly``

    def heard(self, row: int, check_in: CheckIn) -> None:
        """Call before each check-in."""
        now = self.fleet.now
        if now - self._heard_at.get(row, now) > GATE.silence_s:
            self._were_silent.update((row, one.id) for one in check_in.outcomes)
        self._heard_at[row] = now

    def offered(self, row: int, offer: Offer) -> None:
        """Call after each offer."""
        for stored in self.fleet.outcomes[self._read :]:
            if stored.outcome.kind in _ENDED_BADLY:
                known = self._ended_badly.setdefault((stored.row, stored.outcome.release), [])
                known.append(stored.outcome)
        self._read = len(self.fleet.outcomes)
        if offer.action != "install":
            return
        by = self.fleet.engine.rollout(offer.rollout).state
        ended = self._ended_badly.get((row, offer.release), ())
        if any(self._excludes(outcome, by) for outcome in ended):
            name = self.fleet.by_row[row].name
            raise BrokenError(f"{name} is offered {offer.release} again")

    def _excludes(self, outcome: Outcome, by: RolloutState) -> bool:
        """True if the device that reported it must not get the release from this rollout."""
        earlier = self.fleet.engine.rollout(outcome.rollout).state
        if earlier.id == by.id:
            return True
        if by.spec.again and earlier.created_at < by.created_at:
            return False
        return outcome.kind is not OutcomeKind.REVERTED or earlier.reason != "by_hand"

    def check(self) -> None:
        """Call after each evaluation."""
        for state in self.fleet.engine.states():
            view = self.fleet.view(state.id)
            self._check_cuts(state, view)
            self.check_counts(state, view)
            self.check_soak(view)
            if state.id in self.fleet.engine.open_rollouts() and not view.why.waits:
                raise BrokenError(f"{state.id} is open and waits for nothing")
            if state.status is Status.REVERTED:
                self._check_reverted(state)

    def committed(self, state: RolloutState) -> None:
        """Call at each commit. The cut of a wave is exact among the devices online at that time."""
        wave, fleet = state.open_wave, self.fleet.engine.fleet
        if wave is None or wave.threshold is None or not wave.percent or wave.selector:
            return
        if (state.id, wave.threshold) in self._cuts or wave.percent >= 100:
            return  # the last wave takes all devices that are not held back
        self._cuts.add((state.id, wave.threshold))
        rows = self.fleet.engine.rollout(state.id).scope.eligible_rows()
        away = fleet.silent_longer(rows, self.fleet.now, fleet.offline_after_s)
        online = rows[~away].tolist()
        wanted = math.ceil(round(wave.percent * len(online) / 100, 9))
        threshold, names = int(wave.threshold, 16), self.fleet.by_row
        inside = sum(mix64(device_hash(names[row].name) ^ state.salt) < threshold for row in online)
        if inside > wanted or (inside < wanted and not wave.by_handfuls):
            raise BrokenError(f"{inside} is not {wave.percent} % of {len(online)} online devices")

    def rows_that(self, rollout: str, kinds: Iterable[OutcomeKind]) -> set[int]:
        """The rows with a stored outcome of one of ``kinds``, but for removed devices."""
        wanted, removed = set(kinds), self.fleet.engine.fleet.is_removed
        return {
            stored.row
            for stored in self.fleet.outcomes
            if stored.outcome.rollout == rollout
            and stored.outcome.kind in wanted
            and not removed(stored.row)
        }

    def _check_cuts(self, state: RolloutState, view: RolloutView) -> None:
        exposed = self.rows_that(state.id, _EXPOSING)
        if any(wave.selector or wave.count for wave in state.waves):
            return  # waves of other kinds have tests of their own
        wave = state.open_wave
        if wave is None or wave.threshold is None:
            return
        threshold = int(wave.threshold, 16)
        # The wave of everyone, and a completed rollout, take those who enrol later.
        grows = threshold == 1 << 64 or state.status is Status.COMPLETED
        bound = len(self.fleet.by_row) if grows else wave.cut or 0
        if len(exposed) > bound or view.exposed != len(exposed):
            raise BrokenError(f"{len(exposed)} exposed, {view.exposed} counted, cut {wave.cut}")
        for row in exposed:
            position = mix64(device_hash(self.fleet.by_row[row].name) ^ state.salt)
            if position >= threshold:
                raise BrokenError(f"row {row} lies beyond the cut")

    def check_counts(self, state: RolloutState, view: RolloutView) -> None:
        """The engine counts each device once, in one account."""
        active = self.fleet.engine.rollout(state.id)

        def counted(kind: OutcomeKind) -> set[int]:
            rows = self.rows_that(state.id, {kind})
            return {row for row in rows if not active.takes_back_part(row)}

        failed = counted(OutcomeKind.TRIAL_FAILED)
        reverted = counted(OutcomeKind.REVERTED) - failed
        healthy = counted(OutcomeKind.CONFIRMED) - failed - reverted
        seen = view.evidence
        if (seen.healthy, seen.failed - seen.silent + seen.set_aside, seen.reverted) != (
            len(healthy), len(failed), len(reverted),
        ):  # fmt: skip
            raise BrokenError(f"{seen} against {len(healthy)}, {len(failed)}, {len(reverted)}")
        accounts = (
            seen.offered + seen.in_trial + seen.healthy + seen.failed + seen.refused
            + seen.set_aside + seen.reverted + seen.offline + seen.deferred + seen.not_begun + seen.taken_back
        )  # fmt: skip
        if state.wave is not None and accounts != seen.cut:
            raise BrokenError(f"{accounts} devices in the accounts of {seen.cut}")

    def check_soak(self, view: RolloutView) -> None:
        """A wave that passed had no report during its soak time."""
        for wave in view.waves:
            judged = wave.judgement
            if wave.closed_at is None or judged is None or judged.reason != "passed":
                continue
            # A silent device that confirms later improves the evidence: the soak continues.
            said = [
                one.outcome.at
                for one in self.fleet.outcomes
                if one.outcome.rollout == view.id and one.outcome.at <= wave.closed_at
                and one.outcome.kind is OutcomeKind.CONFIRMED
                and one.outcome.at >= (wave.opened_at or 0)
                and (one.row, one.outcome.id) not in self._were_silent
            ]  # fmt: skip
            if said and wave.closed_at - max(said) < view.gate.soak_s:
                raise BrokenError(f"closed {wave.closed_at - max(said)} s after the last report")

    def _check_reverted(self, state: RolloutState) -> None:
        newer = (other for other in self.fleet.engine.states() if other.id != state.id)
        if state.previous is None or any(
            other.spec.release == state.spec.release and other.created_at > state.created_at
            for other in newer
        ):
            return  # it has no previous release, or a second chance
        for row in self.rows_that(state.id, _EXPOSING):
            device = self.fleet.by_row[row]
            online = not device.dead and not device.is_offline(self.fleet.now)
            if online and device.running == state.spec.release:
                raise BrokenError(f"{device.name} still runs {state.spec.release}")
