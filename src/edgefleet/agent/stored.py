"""The durable part of the agent's state as bytes, and the upgrade from version 2."""

from collections.abc import Iterable
from typing import Final

import msgspec

from edgefleet.agent import limits
from edgefleet.agent.state import (
    STATE_VERSION,
    AgentState,
    Attempt,
    Ended,
    ModelState,
    Pace,
    Slot,
    SlotName,
    Soft,
)
from edgefleet.agent.table import Stage
from edgefleet.agent.typed_replace import replace
from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Facts, Outcome
from edgefleet.protocol.wire import Wire, decode, encode

ONE_MODEL: Final = 2  # the version of a device with one model in slots/a and slots/b


class _Versioned(msgspec.Struct, frozen=True):
    """The one field that every version of the state has. Other fields are ignored."""

    version: int


class OneModelState(Wire, frozen=True, kw_only=True):
    """Version 2 of the state."""

    stage: Stage = Stage.IDLE
    active: SlotName | None = None
    a: Slot = Slot()
    b: Slot = Slot()
    attempt: Attempt | None = None
    attempts: int = 0
    ended: tuple[Ended, ...] = ()
    spool: tuple[Outcome, ...] = ()
    seq_reserved: int = 0
    interval_s: float = limits.INTERVAL_S
    facts: Facts | None = None
    facts_known: bool = False
    pace: Pace = Pace()

    def model_of(self, name: SlotName) -> str | None:
        """The model whose files the slot has. None if no release says so."""
        slot, attempt = self.a if name == "a" else self.b, self.attempt
        if slot.installed is not None:
            return slot.installed.model
        return attempt.model if attempt is not None and attempt.slot == name else None


def to_store(state: AgentState) -> bytes:
    """The durable part as JSON; equal bytes need no write."""
    return encode(replace(state, soft=Soft()))


def version_of(data: bytes) -> int:
    """The version of a stored state. Raises InternalError ``internal`` if it is damaged."""
    return decode(data, _Versioned, code="internal").version


def from_store(data: bytes) -> AgentState:
    """Read what ``to_store`` made.

    Raises InternalError ``internal`` if the state is damaged. Raises OperatorError
    ``store_foreign`` if another version of the agent wrote it, or one that stores more.
    """
    found = version_of(data)
    if found != STATE_VERSION:
        raise _foreign(f"has version {found}; this agent reads version {STATE_VERSION}", "version")
    state = decode(data, AgentState, code="internal")
    unknown = _unknown_key(msgspec.json.decode(data), msgspec.to_builtins(state))
    if unknown:
        raise _foreign(f"has the key {unknown}, which this agent does not know", unknown)
    return state


def _foreign(what: str, field: str) -> OperatorError:
    return OperatorError(
        "store_foreign",
        f"state.json {what}.",
        field=field,
        hint="Run the agent version that wrote it, or move state.json out of the data folder, and "
        "state.copy.json too: the agent then continues from the releases in its active slots.",
    )


def _unknown_key(found: object, known: object) -> str:
    """The path of a key in ``found`` that ``known`` has not. Empty if there is none."""
    pairs: Iterable[tuple[str, object, object]] = ()
    if isinstance(found, dict) and isinstance(known, dict):
        extra = next((key for key in found if key not in known), None)
        if extra is not None:
            return str(extra)
        pairs = ((str(key), value, known[key]) for key, value in found.items())
    elif isinstance(found, list) and isinstance(known, list | tuple):
        pairs = ((str(at), *both) for at, both in enumerate(zip(found, known, strict=False)))
    for name, one, other in pairs:
        if inner := _unknown_key(one, other):
            return f"{name}.{inner}"
    return ""


def upgraded(old: OneModelState) -> AgentState:
    """The state of version 2 as one of this version.

    Version 2 replaced a model by another one if the hub offered it. Then each slot has a model of
    its own, and an attempt at a model becomes the attempt of that model.
    """
    empty = Slot()
    models: dict[str, ModelState] = {}
    for name in ("a", "b"):
        model = old.model_of(name)
        if model is None:
            continue
        before = models.get(model, ModelState(ended=old.ended))
        slot = old.a if name == "a" else old.b
        models[model] = ModelState(
            a=slot if name == "a" else before.a,
            b=slot if name == "b" else before.b,
            active=name if old.active == name and slot != empty else before.active,
            ended=old.ended,
        )
    if old.attempt is not None:
        mine = models.get(old.attempt.model, ModelState(ended=old.ended))
        # Version 2 announced a proved release at once, and stage ANNOUNCING has the same meaning.
        models[old.attempt.model] = replace(mine, stage=old.stage, attempt=old.attempt)
    return AgentState(
        models=models,
        attempts=old.attempts,
        spool=old.spool,
        seq_reserved=old.seq_reserved,
        interval_s=old.interval_s,
        facts=old.facts,
        facts_known=old.facts_known,
        pace=old.pace,
    )
