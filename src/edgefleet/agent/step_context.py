"""The context of one step: the state so far, and its effects in order."""

from typing import Unpack

from edgefleet.agent.effect import Effect
from edgefleet.agent.state import AgentState, Attempt, Slot, SlotName
from edgefleet.agent.table import Signal, next_stage
from edgefleet.agent.typed_replace import AttemptChanges, SoftChanges, StateChanges, replace


class StepContext:
    """The working state of the event handlers. Used within one step only."""

    __slots__ = ("effects", "now", "soft", "state")

    def __init__(self, state: AgentState, now: float) -> None:
        self.state = state  # except ``soft``, which is merged at the end
        self.soft = state.soft
        self.now = now
        self.effects: list[Effect] = []

    def end(self) -> AgentState:
        """The state after the step."""
        if self.soft is not self.state.soft:
            self.keep(soft=self.soft)
        return self.state

    @property
    def attempt(self) -> Attempt:
        """The attempt. There is one in every stage except IDLE."""
        attempt = self.state.attempt
        assert attempt is not None, f"no attempt while {self.state.stage}"  # noqa: S101 - a defect, not input
        return attempt

    def keep(self, **changes: Unpack[StateChanges]) -> None:
        """Change stored fields."""
        self.state = replace(self.state, **changes)

    def forgettable(self, **changes: Unpack[SoftChanges]) -> None:
        """Change fields of ``soft``, which are not stored."""
        self.soft = replace(self.soft, **changes)

    def change_attempt(self, **changes: Unpack[AttemptChanges]) -> None:
        self.keep(attempt=replace(self.attempt, **changes))

    def set_slot(self, name: SlotName, slot: Slot) -> None:
        if name == "a":
            self.keep(a=slot)
        else:
            self.keep(b=slot)

    def move(self, signal: Signal) -> None:
        """Move to the next stage. Raises InternalError if the table has none."""
        self.keep(stage=next_stage(self.state.stage, signal))

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def new_job(self) -> int:
        """A job number that is unique in this process."""
        self.forgettable(jobs=self.soft.jobs + 1)
        return self.soft.jobs
