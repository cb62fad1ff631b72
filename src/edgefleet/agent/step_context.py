"""One step in the making: the state so far, and the effects to do, in order."""

from typing import Unpack

import msgspec

from edgefleet.agent.changes import AttemptChanges, SoftChanges, StateChanges
from edgefleet.agent.effect import Effect
from edgefleet.agent.state import AgentState, Attempt, Slot, SlotName
from edgefleet.agent.table import Signal, next_stage


class StepContext:
    """What the handlers of an event pass along. It never outlives the step."""

    __slots__ = ("effects", "now", "soft", "state")

    def __init__(self, state: AgentState, now: float) -> None:
        self.state = state  # but for ``soft``, which changes apart until the end
        self.soft = state.soft
        self.now = now
        self.effects: list[Effect] = []

    def end(self) -> AgentState:
        """The state that the step comes to."""
        if self.soft is not self.state.soft:
            self.keep(soft=self.soft)
        return self.state

    @property
    def attempt(self) -> Attempt:
        """The attempt; there is one in every stage but IDLE."""
        attempt = self.state.attempt
        assert attempt is not None, f"no attempt while {self.state.stage}"  # noqa: S101 - a defect, not input
        return attempt

    def keep(self, **changes: Unpack[StateChanges]) -> None:
        """Change what is stored."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def forgettable(self, **changes: Unpack[SoftChanges]) -> None:
        """Change what a restart may forget."""
        self.soft = msgspec.structs.replace(self.soft, **changes)

    def change_attempt(self, **changes: Unpack[AttemptChanges]) -> None:
        self.keep(attempt=msgspec.structs.replace(self.attempt, **changes))

    def set_slot(self, name: SlotName, slot: Slot) -> None:
        if name == "a":
            self.keep(a=slot)
        else:
            self.keep(b=slot)

    def move(self, signal: Signal) -> None:
        """Go where the table says. Raises InternalError where it says nothing."""
        self.keep(stage=next_stage(self.state.stage, signal))

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def new_job(self) -> int:
        """A number that no effect of this process has had."""
        self.forgettable(jobs=self.soft.jobs + 1)
        return self.soft.jobs
