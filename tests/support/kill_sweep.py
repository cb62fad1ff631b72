"""Kills the agent in each phase of the update path, and checks the device after each kill.

The killer reads the state file, as fast as it can, and sends SIGKILL when a model has the phase that
it waits for. A kill counts in the phases that the models have in the state file afterwards. A trial
that is interrupted twice fails, so the killer interrupts each trial once.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from edgefleet.agent.state import AgentState, ModelState
from edgefleet.agent.table import IN_TRIAL, Stage
from edgefleet.client.watch import ENDED
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import RolloutView, Status
from edgefleet.protocol.shadow import ShadowSpec
from support.three_models import CRASHES, HANG, SEGFAULT_MARK, Home, copy_of, release_folder

UNREPORTED = "unreported"  # decided and stored; the hub does not know it yet
NO_PHASE = "idle"
PHASES = (*(stage.value for stage in Stage if stage is not Stage.IDLE), UNREPORTED)
DECIDED = (OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED)
LONG = {
    Stage.FETCHING: 0.03,
    Stage.PROVING: 0.4,
    Stage.SHADOWING: 1.0,
    Stage.ACTIVATING: 0.3,
    Stage.WATCHING: 2.0,
}
"""Phases in which the kill comes at a drawn time, and the latest time in seconds."""
ONCE = IN_TRIAL | {Stage.SHADOWING}
"""Phases that fail if they are interrupted twice."""
SHADOW = ShadowSpec(share=1.0, samples=10, for_s=5.0, max_disagreement=1.0)
ROUND_S = 180.0
ENDS = (HANG, *CRASHES)
"""Releases of the detector that end in their trial: by a request without an end, and by crashes."""


@dataclass
class Sweep:
    """Rounds of two rollouts that are open at once: a good release, with a shadow, and a bad one."""

    device: Home
    seed: int
    kills: Counter[str] = field(default_factory=Counter)  # by phase
    total: int = 0
    views: list[RolloutView] = field(default_factory=list)
    rounds: int = 0

    def until(self, goal: int, rounds: int) -> None:
        """Run rounds until there were ``goal`` kills in each phase, at most ``rounds``."""
        while self.rounds < rounds and any(self.kills[phase] < goal for phase in PHASES):
            self._round(goal)

    def _round(self, goal: int) -> None:
        number, device = self.rounds, self.device
        self.rounds += 1
        good, bad = [("digits", "gauge"), ("gauge", "detector"), ("detector", "gauge")][number % 3]
        end = ENDS[number // 3 % len(ENDS)]
        device.unquarantine()
        device.publish(self._copy(good, "2", f"good-{number}"))
        device.publish(self._copy(bad, end if bad == "detector" else "3", f"bad-{number}"))
        device.roll_out(good, f"good-{number}", SHADOW)
        device.roll_out(bad, f"bad-{number}")
        self._kill({good: self._targets(goal), bad: self._targets(goal)})
        kept, taken_back = device.ended(good), device.ended(bad)
        self.views += [kept, taken_back]
        assert kept.status is Status.COMPLETED, kept.text
        assert taken_back.status is Status.REVERTED, taken_back.text
        device.agent.wait(lambda state: all(map(_rests, state.models.values())))
        device.check()

    def _copy(self, model: str, release: str, name: str) -> Path:
        folder = self.device.folder
        if release == "segfault":
            return copy_of(release_folder(model, "1"), name, folder, description=SEGFAULT_MARK)
        if release == HANG:
            return copy_of(release_folder(model, "1"), name, folder, hangs=True)
        return copy_of(release_folder(model, release), name, folder)

    def _targets(self, goal: int) -> set[str]:
        """The phases for kills in one rollout, each once."""
        return {phase for phase in PHASES if self.kills[phase] < goal}

    def _kill(self, targets: dict[str, set[str]]) -> None:
        """Kill in each target until the rollouts have ended."""
        device, drawn, interrupted = self.device, Random(self.seed + self.rounds), set[str]()
        client, asked_at, until = device.hub.client(), 0.0, time.monotonic() + ROUND_S
        while time.monotonic() < until:
            for model, phases in targets.items():
                now = self._phases()
                if now.get(model) not in phases or self._in_trial(now) & interrupted:
                    continue
                if now[model] in LONG:
                    time.sleep(drawn.uniform(0, LONG[Stage(now[model])]))
                    again = self._phases()
                    if again[model] != now[model] or self._in_trial(again) & interrupted:
                        continue
                died_in = self._kill_once()
                interrupted |= self._in_trial(died_in)
                for one, phase in died_in.items():
                    targets[one].discard(phase)
                break
            if time.monotonic() - asked_at > 0.2:
                asked_at = time.monotonic()
                rollouts = [device.rollouts[model] for model in targets]
                views = [device.decide(client.rollout(one)) for one in rollouts]
                if all(view.status in ENDED for view in views):
                    return
            time.sleep(0.0005)
        raise AssertionError(f"the rollouts did not end: {device.agent.state()}")

    def _kill_once(self) -> dict[str, str]:
        """Kill the agent, check the device, start the agent. Returns the phase of each model."""
        self.device.agent.kill()
        died_in = self._phases()
        self.total += 1
        self.kills.update(died_in.values())
        self.device.check()
        self.device.start()
        return died_in

    def _phases(self) -> dict[str, str]:
        """The phase of each model with an open rollout."""
        state = self.device.agent.state()
        return {model: self._phase(state, model) for model in self.device.offered}

    @staticmethod
    def _in_trial(phases: dict[str, str]) -> set[str]:
        return {model for model, phase in phases.items() if phase in ONCE}

    def _phase(self, state: AgentState | None, model: str) -> str:
        if state is None:
            return NO_PHASE
        stage = state.models[model].stage
        if stage is not Stage.IDLE:
            return stage.value
        rollout = self.device.rollouts[model]
        waits = any(one.rollout == rollout and one.kind in DECIDED for one in state.spool)
        return UNREPORTED if waits else NO_PHASE


def _rests(state: ModelState) -> bool:
    return state.stage is Stage.IDLE
