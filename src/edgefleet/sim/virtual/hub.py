"""A hub without sockets: the real engine, fed in the order in which the real hub feeds it.

The order of a check-in is that of ``rollout/checkin.py``. Decisions of gates and operators are
stored, then committed. Between any two steps the process may be killed; what was not stored is then
lost.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Outcome
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Freeze, RolloutSpec, Verb
from edgefleet.protocol.version import ONE_MODEL
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.limits import FEW_DEVICES, STANDING_FLUSH_S
from edgefleet.sim.load.hub_api import Failed
from edgefleet.sim.virtual.observer import Witnesses
from edgefleet.sim.virtual.store import Store
from edgefleet.sim.virtual.trace import Trace

Parted = tuple[tuple[CheckInAnswer | Failed, Rows], ...]
"""Each answer with its devices. No row occurs twice."""

_DOWN: Final = Failed("unreachable", "The hub is down.")


class HubCrashed(Exception):  # noqa: N818 - no error: it was to happen
    """The process is gone, in the middle of what it did."""


class SimHub:
    """``crash_in`` effects from now the process is killed; None: it is not."""

    def __init__(
        self, store: Store, trace: Trace, *, now: float, interval_s: float, gate: Gate = judge
    ) -> None:
        self.store = store
        self.trace = trace
        self.interval_s = interval_s
        self.releases: list[tuple[ReleaseManifest, str]] = []
        self._gate = gate
        self._freeze = Freeze(frozen=False)
        self.engine = self._new_engine(now)
        self.witnesses: Witnesses | None = None
        self.crash_in: int | None = None
        self.down_s = 0.0
        self.is_restored = False  # the next start reads the devices' reports from a backup
        self.down_until = 0.0
        self.crashes = 0
        self._flushed_at = now
        self.keeps_standings = True

    # Its life.

    def killed(self, now: float) -> None:
        """The process is gone. It is started again after a while."""
        self.crashes += 1
        self.crash_in = None
        self.down_until = now + self.down_s
        self.trace.note(now, "hub killed", "hub", f"{len(self.store)} outcomes stored")

    def start_again(self, now: float) -> None:
        """Read the store, as after any start."""
        engine = self._new_engine(now)
        for name, profile, labels in self.store.devices:
            engine.fleet.add(name, profile, labels)
        for manifest, sha256 in self.releases:
            engine.add_release(manifest, sha256)
        self.store.load_standings(engine.fleet, backup=self.is_restored)
        self.is_restored = False
        for state in self.store.states():
            engine.load(state)
        for rows, outcome, at in self.store.outcomes():
            if len(rows) == 1:
                engine.intake.record(int(rows[0]), outcome, at)
            else:
                engine.batch.record(rows, outcome, at)
        engine.set_freeze(self._freeze)
        self.engine = engine
        self.down_until = 0.0
        self.trace.note(now, "hub up", "hub", f"{len(engine.fleet)} devices")

    def _new_engine(self, now: float) -> Engine:
        return Engine(
            now=now,
            offline_after_s=3 * self.interval_s,
            gate=self._gate,
            utc_offset_s=utc_offset_s,
        )

    def _effect(self) -> None:
        """Between two effects: the moment to be killed in."""
        if self.crash_in is None:
            return
        if self.crash_in == 0:
            raise HubCrashed
        self.crash_in -= 1

    # Operators and publishers.

    def publish(self, manifest: ReleaseManifest, sha256: str) -> None:
        self.releases.append((manifest, sha256))
        self.engine.add_release(manifest, sha256)

    def enrol(self, name: str, profile: str, labels: Mapping[str, str]) -> int:
        self.store.devices.append((name, profile, labels))
        return self.engine.fleet.add(name, profile, labels)

    def plan(self, spec: RolloutSpec, *, rollout_id: str, salt: int, now: float) -> None:
        state = self.engine.plan(spec, rollout_id=rollout_id, salt=salt, now=now)
        self.store.save_state(state)
        self.engine.load(state)
        self._changed(None, state, now)

    def command(self, rollout_id: str, verb: Verb, now: float) -> bool:
        """False when the hub is down or refuses it now."""
        if self.down_until:
            return False
        try:
            change = self.engine.command(rollout_id, verb, now=now, generation=None)
        except OperatorError as error:
            self.trace.note(now, "operator", verb.value, error.code)
            return False
        self.trace.note(now, "operator", verb.value, "done")
        try:
            self._save(change, now)
        except HubCrashed:
            self.killed(now)
        return True

    def freeze(self, now: float, *, frozen: bool) -> None:
        """An operator freezes the fleet, or lets it go; to be asked while the hub is up."""
        self._freeze = Freeze(frozen=frozen, since=now)
        self.engine.set_freeze(self._freeze)
        self.store.commits += 1
        self.trace.note(now, "operator", "freeze" if frozen else "thaw", "done")

    def approve(self, rollout_id: str, person: str, now: float) -> None:
        """A person agrees; not while the hub is down."""
        if self.down_until:
            return
        try:
            self._save(self.engine.approve(rollout_id, person, now=now), now)
        except HubCrashed:
            self.killed(now)

    # Periodic work.

    def tick(self, now: float) -> None:
        """Evaluate every gate."""
        if self.down_until:
            if now >= self.down_until:
                self.start_again(now)
            return
        try:
            for rollout in self.engine.evaluated_rollouts():
                change = self.engine.evaluate(rollout, now)
                if change is not None:
                    self._save(change, now)
        except HubCrashed:
            self.killed(now)
            return
        if self.keeps_standings and now - self._flushed_at >= STANDING_FLUSH_S:
            self.store.save_standings(self.engine.fleet)
            self._flushed_at = now

    def _save(self, change: Change, now: float) -> None:
        before = next(one for one in self.engine.states() if one.id == change.state.id)
        self._effect()
        self.store.save_state(change.state)
        self._changed(before, change.state, now)
        self._effect()
        self.engine.commit(change)
        self._effect()

    def _changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        text = f"{after.status} {after.reason} wave {after.wave}"
        self.trace.note(now, "rollout", after.id, text)
        if self.witnesses is not None:
            for hear in self.witnesses.changed:
                hear(before, after, now)

    # Devices.

    def wanted(self, rows: Rows) -> Mask:
        """Which of these idle devices the hub may offer something."""
        return self.engine.batch.wanted(rows)

    def check_in(self, rows: Rows, check_in: CheckIn, now: float) -> Parted:
        """The answers to devices that send the same check-in: each answer with its devices."""
        if self.down_until:
            return ((_DOWN, rows),)
        try:
            if len(rows) == 1:
                return ((self._answer(int(rows[0]), rows, check_in, now), rows),)
            if len(rows) <= FEW_DEVICES:
                return self._answer_few(rows, check_in, now)
            return self._answer_all(rows, check_in, now)
        except HubCrashed:
            self.killed(now)
            return ((_DOWN, rows),)

    def _answer(
        self, row: int, rows: Rows, check_in: CheckIn, now: float
    ) -> CheckInAnswer | Failed:
        """One device. ``rows`` is ``row`` alone."""
        step = checkin.begin(self.engine, row, check_in, now)
        if isinstance(step, checkin.OutOfSequence):
            return _replayed(step)
        while isinstance(step, checkin.Pending):
            stored = self._store(rows, step.to_store, now)
            step = checkin.finish(self.engine, step, [outcome for _, outcome in stored], now)
        return self._answered(rows, step, check_in, now)

    def _answer_few(self, rows: Rows, check_in: CheckIn, now: float) -> Parted:
        """So few are quicker one by one."""
        parts: dict[CheckInAnswer | Failed, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            answer = self._answer(row, rows[place : place + 1], check_in, now)
            parts.setdefault(answer, []).append(row)
        return tuple((answer, np.array(told)) for answer, told in parts.items())

    def _answer_all(self, rows: Rows, check_in: CheckIn, now: float) -> Parted:
        """Many devices, in one transaction, as a hub that commits in groups counts them."""
        begun = checkin.begin_batch(self.engine, rows, check_in, now)
        step = begun.step
        while isinstance(step, checkin.PendingBatch):
            stored = [
                part
                for group in step.to_store
                for part in self._store(group.rows, group.to_store, now)
            ]
            step = checkin.finish_batch(self.engine, step, stored, now)
        refused = tuple((_replayed(refusal), told) for refusal, told in begun.refused)
        answered = tuple(
            (self._answered(told, answer, check_in, now), told) for answer, told in step.parts
        )
        return (*refused, *answered)

    def _store(
        self, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[tuple[Rows, Outcome], ...]:
        """Make outcomes durable, and return the new ones. Facts do not change in the simulator."""
        if not outcomes:
            return ()
        self._effect()
        fresh = self.store.save_outcomes(rows, outcomes, now)
        for told, outcome in fresh:
            if self.witnesses is not None:
                for hear in self.witnesses.stored:
                    hear(told, outcome, now)
            self.trace.rows(now, "reported", told, f"{outcome.kind} {outcome.reason}")
        self._effect()
        return fresh

    def _answered(
        self, rows: Rows, answered: checkin.Answered, check_in: CheckIn, now: float
    ) -> CheckInAnswer:
        """The answer, once the observers know of it."""
        stored, offers, witnesses = answered.receipt.stored, answered.offers, self.witnesses
        one_model = check_in.protocol <= ONE_MODEL
        if stored:
            self._effect()
            if witnesses is not None:
                outcomes = tuple(one for one in check_in.outcomes if one.id in stored)
                for hear in witnesses.acknowledged:
                    hear(rows, outcomes, now)
        for offer in offers:
            self.trace.rows(now, "offered", rows, f"{offer.action} {offer.model} {offer.release}")
            for hear in () if witnesses is None else witnesses.offered:
                hear(rows, offer, now)
        if check_in.full or answered.wants_models:
            for hear in () if witnesses is None else witnesses.listed:
                hear(rows, now, full=check_in.full, wanted=answered.wants_models)
        return CheckInAnswer(
            interval_s=self.interval_s,
            acked=answered.acked,
            offers=() if one_model else offers,
            offer=answered.offer if one_model else None,
            want="models" if answered.wants_models else "",
        )


def _replayed(refused: checkin.OutOfSequence) -> Failed:
    return Failed("checkin_replayed", next_seq=refused.next_seq)
