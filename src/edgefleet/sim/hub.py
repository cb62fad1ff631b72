"""A hub without sockets: the real engine, fed in the order in which the real hub feeds it.

store -> record -> answer for what devices report, store -> commit for what gates and operators
decide. Between any two of these the process may be killed; what was not stored is then lost.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.zones import utc_offset_s
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Outcome, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec, Verb
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.fleet import Mask, Rows
from edgefleet.rollout.state import RolloutState
from edgefleet.sim.door import Failed
from edgefleet.sim.limits import STANDING_FLUSH_S
from edgefleet.sim.store import Store
from edgefleet.sim.trace import Trace
from edgefleet.sim.witness import Witnesses

TRIAL_STARTED: Final = OutcomeKind.TRIAL_STARTED
_DOWN: Final = Failed("unreachable", "The hub is down.")


class HubCrashed(Exception):  # noqa: N818 - no error: it was to happen
    """The process is gone, in the middle of what it did."""


class SimHub:
    """``crash_in`` effects from now the process is killed; None: it is not."""

    def __init__(self, store: Store, trace: Trace, *, now: float, interval_s: float) -> None:
        self.store = store
        self.trace = trace
        self.interval_s = interval_s
        self.releases: list[tuple[ReleaseManifest, str]] = []
        self.engine = self._new_engine(now)
        self.witnesses: Witnesses | None = None
        self.crash_in: int | None = None
        self.down_s = 0.0
        self.down_until = 0.0
        self.crashes = 0
        self.held_back = 0  # starts that were not admitted
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
        for row, outcome, at in self.store.outcomes():
            engine.record(row, outcome, at)
        self.engine = engine
        self.down_until = 0.0
        self.trace.note(now, "hub up", "hub", f"{len(engine.fleet)} devices")

    def _new_engine(self, now: float) -> Engine:
        return Engine(now=now, offline_after_s=3 * self.interval_s, utc_offset_s=utc_offset_s)

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
                change = self.engine.look(rollout, now)
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

    def wanted(self, rows: Rows, now: float) -> Mask:
        """Which of these idle devices would be told something."""
        return self.engine.wanted(rows, now)

    def check_in(self, row: int, said: CheckIn, now: float) -> CheckInAnswer | Failed:
        """What a device hears back."""
        if self.down_until:
            return _DOWN
        try:
            return self._answer(row, said, now)
        except HubCrashed:
            self.killed(now)
            return _DOWN

    def _answer(self, row: int, said: CheckIn, now: float) -> CheckInAnswer | Failed:
        engine, fleet = self.engine, self.engine.fleet
        if not fleet.accept_seq(row, said.seq):
            return Failed("checkin_replayed", next_seq=fleet.last_seq(row) + 1)
        fleet.speaks(row, said.protocol)
        fleet.seen(row, now, model=said.model, release=said.release, phase=said.phase)
        acked: tuple[str, ...] = ()
        if said.outcomes:
            acked = self._take(row, said.outcomes, now)
        if said.telemetry is not None:
            engine.telemetry(row, said.telemetry, now)
        granted = engine.grant(row, now)
        if granted is not None:
            self._keep(row, (granted,), now)
        offer = engine.answer(row, now)
        if offer is not None:
            self.trace.row(now, "offered", row, f"{offer.action} {offer.release}")
            if self.witnesses is not None:
                for hear in self.witnesses.offered:
                    hear(row, offer, now)
        return CheckInAnswer(interval_s=self.interval_s, acked=acked, offer=offer)

    def _take(self, row: int, outcomes: tuple[Outcome, ...], now: float) -> tuple[str, ...]:
        engine = self.engine
        refused: set[str] = set()
        for outcome in outcomes:
            if outcome.kind is TRIAL_STARTED and not engine.admit(row, outcome, now):
                refused.add(outcome.id)
        if refused:
            outcomes = tuple(outcome for outcome in outcomes if outcome.id not in refused)
            self.held_back += len(refused)
            if not outcomes:
                return ()
        self._keep(row, outcomes, now)
        if self.witnesses is not None:
            for hear in self.witnesses.acknowledged:
                hear(row, outcomes, now)
        return tuple(outcome.id for outcome in outcomes)

    def _keep(self, row: int, outcomes: tuple[Outcome, ...], now: float) -> None:
        """Make them durable, then count those that are new."""
        witnesses, engine = self.witnesses, self.engine
        self._effect()
        fresh = self.store.save_outcomes(row, outcomes, now)
        if witnesses is not None:
            for outcome in fresh:
                for hear in witnesses.stored:
                    hear(row, outcome, now)
        for outcome in fresh:
            self._effect()
            engine.record(row, outcome, now)
            self.trace.row(now, "reported", row, f"{outcome.kind} {outcome.reason}")
        self._effect()
