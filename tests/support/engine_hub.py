"""The real rollout engine behind simulated devices, all in virtual time."""

from dataclasses import dataclass, field, replace

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    EnrolAnswer,
    EnrolRequest,
)
from edgefleet.protocol.rollout import GateSpec, RolloutSpec, RolloutView, Status, Verb, WaveSpec
from edgefleet.rollout import checkin
from edgefleet.rollout.engine import Engine
from edgefleet.sim.load.device import DeviceFacts, Surroundings
from edgefleet.sim.load.disk import Shelf
from edgefleet.sim.load.event_loop import EventLoop
from edgefleet.sim.load.fleet import SimulatedFleet
from edgefleet.sim.load.hub_api import Done, Failed
from support.toy_fleet import KEY, MODEL, ToyHub, ToyLaboratory, behaviour, manifest

TICK_S = 0.5
ENDED = (Status.COMPLETED, Status.REVERTED, Status.REFUSED)
GATE = GateSpec(soak_s=2.0, confirm_after_s=3.0, silence_s=40.0, patience_s=60.0, min_requests=20)


class EngineHub(ToyHub):
    """A ToyHub whose offers come from the engine, ticked by the world."""

    def __init__(self, world: EventLoop, *, interval_s: float = 2.0) -> None:
        super().__init__(interval_s=interval_s)
        self.world = world
        self.engine = Engine(now=world.now(), offline_after_s=3 * interval_s)
        self._tick()

    def enrol(self, request: EnrolRequest, done: Done[EnrolAnswer]) -> None:
        self.engine.fleet.add(request.name, request.facts.profile, request.labels)
        super().enrol(request, done)

    def publish(self, release: str, *args: object, **changes: object) -> None:
        super().publish(release, *args, **changes)  # type: ignore[arg-type] # passed on as it came
        self.engine.add_release(manifest(release, **changes), self.digests[release])

    def start(self, release: str, *, percents: tuple[float, ...], gate: GateSpec = GATE) -> str:
        now, rollout = self.world.now(), f"to-{release}"
        spec = RolloutSpec(
            model=MODEL,
            release=release,
            waves=tuple(WaveSpec(percent=percent) for percent in percents),
            gate=gate,
        )
        salt = mix64(device_hash(release))
        self.engine.load(self.engine.plan(spec, rollout_id=rollout, salt=salt, now=now))
        self.engine.commit(self.engine.command(rollout, Verb.START, now=now))
        return rollout

    def view(self, rollout: str) -> RolloutView:
        return self.engine.view(rollout, self.world.now())

    def check_in(self, token: str, check_in: CheckIn, done: Done[CheckInAnswer]) -> None:
        now, row = self.world.now(), self.engine.fleet.row(token)
        assert row is not None
        step = checkin.begin(self.engine, row, check_in, now)
        if isinstance(step, checkin.OutOfSequence):
            self.replays += 1
            done(Failed("checkin_replayed", "", step.next_seq))
            return
        self.running[token] = check_in.release
        self.trace.append(f"{now:.3f} {token} {check_in.seq} {check_in.phase} {check_in.release}")
        while isinstance(step, checkin.Pending):
            fresh = [one for one in step.to_store if (token, one.id) not in self._known]
            self._known.update((token, one.id) for one in fresh)
            self.outcomes += [(token, one) for one in fresh]
            step = checkin.finish(self.engine, step, fresh, now)
        done(CheckInAnswer(interval_s=self.interval_s, acked=step.acked, offer=step.offer))

    def _tick(self) -> None:
        now = self.world.now()
        for rollout in self.engine.open_rollouts():
            state = next(state for state in self.engine.states() if state.id == rollout)
            if state.status is not Status.PLANNED and (
                change := self.engine.evaluate(rollout, now)
            ):
                self.engine.commit(change)
        self.world.after(TICK_S, self._tick)


@dataclass
class Story:
    """The demo's story in virtual time: 1 to all, 2 in waves, 3 goes bad, 4 is refused."""

    people: tuple[DeviceFacts, ...]
    seed: int = 7
    start: float = 1000.0
    views: dict[str, RolloutView] = field(default_factory=dict)
    most_on: dict[str, int] = field(default_factory=dict)  # release -> devices at once

    def tell(self) -> "Story":
        self.world = EventLoop(self.start)
        self.hub = EngineHub(self.world)
        laboratory = ToyLaboratory(
            {
                "1": behaviour(0.85),
                "2": behaviour(0.95),
                "3": behaviour(0.25),
                "4": behaviour(passed=False),
            }
        )
        around = Surroundings(
            world=self.world,
            hub=self.hub,
            shelf=Shelf(),
            laboratory=laboratory,
            trusted={KEY.public.keyid: KEY.public},
            seed=self.seed,
        )
        self.fleet = SimulatedFleet(around)
        for facts in self.people:
            self.fleet.enrol(replace(facts), "claim")
        self.run(10)
        for release in "1234":
            self.hub.publish(release)
            percents = (100.0,) if release == "1" else (1.0, 10.0, 100.0)
            rollout = self.hub.start(release, percents=percents)
            for _ in range(600):
                self.run(1)
                if self.hub.view(rollout).status in ENDED:
                    break
            self.views[release] = self.hub.view(rollout)
        self.run(120)  # everything heals, everybody may catch up
        return self

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now() + seconds)
        for release, count in self.fleet.report("progress").on_release.items():
            self.most_on[release] = max(self.most_on.get(release, 0), count)
