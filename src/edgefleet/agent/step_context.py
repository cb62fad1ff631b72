"""The context of one step: the state so far, and its effects in order.

``DeviceContext`` has what the models share. ``StepContext`` is bound to one model of it.
"""

from typing import Unpack

from edgefleet.agent.effect import Effect
from edgefleet.agent.state import (
    NEW_MODEL,
    NEW_SOFT,
    AgentState,
    Attempt,
    ModelState,
    Slot,
    SlotName,
)
from edgefleet.agent.table import Signal, next_stage
from edgefleet.agent.typed_replace import (
    AttemptChanges,
    ModelChanges,
    ModelSoftChanges,
    SoftChanges,
    StateChanges,
    replace,
)


class DeviceContext:
    """The working state of a step. ``models`` and ``soft_models`` are always current."""

    __slots__ = (
        "_contexts",
        "effects",
        "is_apply_due",
        "models",
        "now",
        "soft",
        "soft_models",
        "state",
    )

    def __init__(self, state: AgentState, now: float) -> None:
        self.state = state  # except ``models`` and ``soft``, which are merged at the end
        self.soft = state.soft  # except its ``models``
        self.models = state.models
        self.soft_models = state.soft.models
        self.now = now
        self.effects: list[Effect] = []
        self.is_apply_due = False  # the wanted set has changed, or is not served
        self._contexts: dict[str, StepContext] = {}

    def model(self, name: str) -> "StepContext":
        """The context of the model ``name``. There is one for each model and step."""
        context = self._contexts.get(name)
        if context is None:
            context = self._contexts[name] = StepContext(self, name)
        return context

    def end(self) -> AgentState:
        """The state after the step."""
        self._contexts.clear()  # no cycle is left for the garbage collector
        state, soft = self.state, self.soft
        if self.soft_models is not soft.models:
            soft = replace(soft, models=self.soft_models)
        if soft is not state.soft or self.models is not state.models:
            state = self.state = replace(state, soft=soft, models=self.models)
        return state

    def keep(self, **changes: Unpack[StateChanges]) -> None:
        """Change stored fields of the device."""
        self.state = replace(self.state, **changes)

    def forgettable(self, **changes: Unpack[SoftChanges]) -> None:
        """Change fields of the device's ``soft``, which are not stored."""
        self.soft = replace(self.soft, **changes)

    def forget(self, model: str) -> None:
        """Remove the model's state. It has no context in this step."""
        self.models = {name: state for name, state in self.models.items() if name != model}
        self.soft_models = {name: soft for name, soft in self.soft_models.items() if name != model}

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def new_job(self) -> int:
        """A job number that is unique in this process."""
        self.forgettable(jobs=self.soft.jobs + 1)
        return self.soft.jobs


class StepContext:
    """The working state of one model's event handlers. Used within one step only."""

    __slots__ = ("device", "model", "now", "soft", "state")

    def __init__(self, device: DeviceContext, model: str) -> None:
        self.device = device
        self.model = model
        self.now = device.now
        self.state: ModelState = device.models.get(model, NEW_MODEL)
        self.soft = device.soft_models.get(model, NEW_SOFT)

    @property
    def attempt(self) -> Attempt:
        """The attempt. There is one in every stage except IDLE."""
        attempt = self.state.attempt
        assert attempt is not None, f"no attempt while {self.state.stage}"  # noqa: S101 - a defect, not input
        return attempt

    def keep(self, **changes: Unpack[ModelChanges]) -> None:
        """Change stored fields of the model."""
        self.state = replace(self.state, **changes)
        device = self.device
        if device.models is device.state.models:
            device.models = device.models.copy()
        device.models[self.model] = self.state

    def forgettable(self, **changes: Unpack[ModelSoftChanges]) -> None:
        """Change fields of the model's ``soft``, which are not stored."""
        self.soft = replace(self.soft, **changes)
        device = self.device
        if device.soft_models is device.state.soft.models:
            device.soft_models = device.soft_models.copy()
        device.soft_models[self.model] = self.soft

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
