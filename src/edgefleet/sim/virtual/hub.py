"""A hub without sockets: the real engine, fed in the order in which the real hub feeds it.

store -> record -> answer for what devices report, store -> commit for what gates and operators
decide. Between any two of these the process may be killed; what was not stored is then lost.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer, Outcome, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import Freeze, RolloutSpec, Verb
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.limits import FEW_DEVICES, STANDING_FLUSH_S
from edgefleet.sim.load.hub_api import Failed
from edgefleet.sim.virtual.observer import Witnesses
from edgefleet.sim.virtual.store import Store
from edgefleet.sim.virtual.trace import Trace

TRIAL_STARTED: Final = OutcomeKind.TRIAL_STARTED
Parted = tuple[tuple[CheckInAnswer | Failed, Rows], ...]
"""Who hears what: no row twice."""

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
        self.store.load_standings(engine.fleet)
        for manifest, sha256 in self.releases:
            engine.add_release(manifest, sha256)
        for state in self.store.states():
            engine.load(state)
        for rows, outcome, at in self.store.outcomes():
            if len(rows) == 1:
                engine.record(int(rows[0]), outcome, at)
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

    # What it does by itself.

    def tick(self, now: float) -> None:
        """Let every gate look."""
        if self.down_until:
            if now >= self.down_until:
                self.start_again(now)
            return
        try:
            for rollout in self.engine.open_rollouts():
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

    def check_in(self, rows: Rows, said: CheckIn, now: float) -> Parted:
        """What devices that say the same hear back: who hears what."""
        if self.down_until:
            return ((_DOWN, rows),)
        try:
            if len(rows) == 1:
                return ((self._answer(int(rows[0]), rows, said, now), rows),)
            if len(rows) <= FEW_DEVICES:
                return self._answer_few(rows, said, now)
            return self._answer_all(rows, said, now)
        except HubCrashed:
            self.killed(now)
            return ((_DOWN, rows),)

    # One device.

    def _answer(self, row: int, rows: Rows, said: CheckIn, now: float) -> CheckInAnswer | Failed:
        engine, fleet = self.engine, self.engine.fleet
        if not fleet.accept_seq(row, said.seq):
            return Failed("checkin_replayed", next_seq=fleet.last_seq(row) + 1)
        fleet.set_protocol(row, said.protocol)
        fleet.observe(row, now, model=said.model, release=said.release, phase=said.phase)
        acked: tuple[str, ...] = ()
        if said.outcomes:
            acked = self._take(row, rows, said.outcomes, now)
        if said.telemetry is not None:
            engine.telemetry(row, said.telemetry, now)
        granted = engine.grant(row, now)
        if granted is not None:
            self._keep(row, rows, (granted,), now)
        offer = engine.answer(row, now)
        if offer is not None:
            self._offered(rows, offer, now)
        return CheckInAnswer(interval_s=self.interval_s, acked=acked, offer=offer)

    def _take(
        self, row: int, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[str, ...]:
        """The ids of those that are durable, and counted, now."""
        outcomes = tuple(
            outcome
            for outcome in outcomes
            if outcome.kind is not TRIAL_STARTED or self.engine.admit(row, outcome, now)
        )
        if not outcomes:
            return ()
        self._keep(row, rows, outcomes, now)
        return self._acknowledge(rows, outcomes, now)

    def _keep(self, row: int, rows: Rows, outcomes: tuple[Outcome, ...], now: float) -> None:
        """Make them durable, then count those that are new."""
        for _, outcome in self._store(rows, outcomes, now):
            self._effect()
            self.engine.record(row, outcome, now)

    # Many that say the same.

    def _answer_few(self, rows: Rows, said: CheckIn, now: float) -> Parted:
        """So few are quicker one by one."""
        parts: dict[CheckInAnswer | Failed, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            answer = self._answer(row, rows[place : place + 1], said, now)
            parts.setdefault(answer, []).append(row)
        return tuple((answer, np.array(told)) for answer, told in parts.items())

    def _answer_all(self, rows: Rows, said: CheckIn, now: float) -> Parted:
        """They are counted in one transaction, as a hub that commits in groups counts them."""
        fleet, parts = self.engine.fleet, list[tuple[CheckInAnswer | Failed, Rows]]()
        accepted = fleet.accept_seqs(rows, said.seq)
        for row in rows[~accepted].tolist():
            replayed = Failed("checkin_replayed", next_seq=fleet.last_seq(row) + 1)
            parts.append((replayed, np.array([row])))
        rows = rows[accepted]
        if not len(rows):
            return tuple(parts)
        fleet.set_protocols(rows, said.protocol)
        fleet.observe_all(rows, now, model=said.model, release=said.release, phase=said.phase)
        acked = self._take_all(rows, said.outcomes, now)
        if said.telemetry is not None:
            self.engine.batch.telemetry(rows, said.telemetry, now)
        for offer, told in self.engine.batch.answers(rows, now):
            if offer is not None:
                self._offered(told, offer, now)
            for ids, heard in acked:
                both = np.intersect1d(told, heard, assume_unique=True)
                if len(both):
                    answer = CheckInAnswer(interval_s=self.interval_s, acked=ids, offer=offer)
                    parts.append((answer, both))
        return tuple(parts)

    def _take_all(
        self, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[tuple[tuple[str, ...], Rows], ...]:
        """Who has which ids acknowledged."""
        alike = self.engine.batch
        starts = [outcome for outcome in outcomes if outcome.kind is TRIAL_STARTED]
        if not starts:
            groups = [(rows, outcomes)]
        elif len(starts) == 1:
            admitted = alike.admit(rows, starts[0], now)
            others = tuple(outcome for outcome in outcomes if outcome is not starts[0])
            groups = [(rows[admitted], outcomes), (rows[~admitted], others)]
        else:
            return tuple((self._take(int(row), row, outcomes, now), row) for row in rows[:, None])
        acked: list[tuple[tuple[str, ...], Rows]] = []
        for told, theirs in groups:
            if not len(told):
                continue
            if not theirs:
                acked.append(((), told))
                continue
            for fresh, outcome in self._store(told, theirs, now):
                self._effect()
                alike.record(fresh, outcome, now)
            acked.append((self._acknowledge(told, theirs, now), told))
        return tuple(acked)

    # Of both.

    def _store(
        self, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[tuple[Rows, Outcome], ...]:
        self._effect()
        fresh = self.store.save_outcomes(rows, outcomes, now)
        for told, outcome in fresh:
            if self.witnesses is not None:
                for hear in self.witnesses.stored:
                    hear(told, outcome, now)
            self.trace.rows(now, "reported", told, f"{outcome.kind} {outcome.reason}")
        return fresh

    def _acknowledge(
        self, rows: Rows, outcomes: tuple[Outcome, ...], now: float
    ) -> tuple[str, ...]:
        self._effect()
        if self.witnesses is not None:
            for hear in self.witnesses.acknowledged:
                hear(rows, outcomes, now)
        return tuple(outcome.id for outcome in outcomes)

    def _offered(self, rows: Rows, offer: Offer, now: float) -> None:
        self.trace.rows(now, "offered", rows, f"{offer.action} {offer.release}")
        if self.witnesses is not None:
            for hear in self.witnesses.offered:
                hear(rows, offer, now)
