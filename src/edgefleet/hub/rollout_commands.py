"""All changes of rollouts: a decision of the engine is durable before it takes effect.

One change at a time: each is decided on the state after the previous one. If a caller is cancelled,
its change still completes, because a write that is queued cannot be withdrawn.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import new_id
from edgefleet.hub.actors import line_by, signed
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.operator import Unquarantine
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, RolloutSpec, Verb
from edgefleet.rollout.engine import Change, Engine
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.lifecycle.step import AuditLine
from edgefleet.rollout.plan import second_chance
from edgefleet.security.principals import Principal


class RolloutCommands:
    """The only component that changes rollouts."""

    def __init__(self, store: SqliteStore, engine: Engine, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._entropy = entropy
        self._turn = asyncio.Lock()

    def load(self) -> None:
        """Restore rollouts, the freeze and cleared quarantines from the store."""
        decoder = msgspec.json.Decoder(RolloutState)
        self._engine.load_all(map(decoder.decode, self._store.reader.load_rollouts()))
        self._engine.set_freeze(self._store.reader.load_freeze())
        for row, model, rollbacks in self._store.reader.load_unquarantined():
            self._engine.unquarantine(model, row, rollbacks)

    async def plan(self, spec: RolloutSpec, by: Principal) -> str:
        """Plan a rollout. Returns its id. Raises OperatorError."""
        return await asyncio.shield(self._plan(spec, by))

    async def command(self, rollout: str, verb: Verb, command: Command, by: Principal) -> None:
        """Apply an operator's verb. Raises OperatorError ``verb_not_now`` or ``not_found``."""
        await asyncio.shield(self._command(rollout, verb, command, by))

    async def approve(self, rollout: str, request: ApproveRequest, by: Principal) -> None:
        """Record an approval.

        Raises OperatorError ``verb_not_now``, ``approved_already`` or ``approves_own_plan``.
        """
        async with self._turn:
            now = self._clock.now()
            if not _needs_two(self._engine.rollout(rollout).state.spec):
                by = by.named(request.person)
            change = self._engine.approve(rollout, by.name, now=now)
            lines = [signed(line, by) for line in change.audit]
            if request.note:
                lines.append(line_by(by, "note", f"rollout/{rollout}", request.note))
            await self._save(change, lines, now)

    async def freeze(self, request: Freeze, by: Principal) -> None:
        """Freeze or unfreeze the whole fleet."""
        async with self._turn:
            now = self._clock.now()
            before = self._engine.freeze
            since = before.since if request.frozen == before.frozen else now
            by = by.named(request.person)
            freeze = msgspec.structs.replace(request, since=since, person=by.name)
            action = "freeze" if request.frozen else "unfreeze"
            line = line_by(by, action, "fleet", request.note)
            await self._store.save_freeze(
                freeze, line, now, lambda _none: self._engine.set_freeze(freeze)
            )

    async def unquarantine(self, row: int, request: Unquarantine, by: Principal) -> None:
        """Clear a quarantined device. Raises OperatorError ``device_not_quarantined``."""
        async with self._turn:
            engine, name = self._engine, self._engine.fleet.name(row)
            models = engine.quarantined_models(row)
            if not models:
                raise OperatorError("device_not_quarantined", f"{name} is not quarantined.")
            rollbacks = {model: engine.rollbacks(model, row) for model in models}
            line = line_by(by.named(request.person), "unquarantine", f"device/{name}", request.note)

            def committed(_none: None) -> None:
                for model, count in rollbacks.items():
                    engine.unquarantine(model, row, count)

            await self._store.save_unquarantined(row, rollbacks, line, self._clock.now(), committed)

    async def evaluate(self) -> None:
        """Evaluate the gate of every open rollout. Raises DeviceError if the store fails."""
        await asyncio.shield(self._evaluate())

    async def _plan(self, spec: RolloutSpec, by: Principal) -> str:
        async with self._turn:
            now = self._clock.now()
            state = self._engine.plan(
                spec,
                rollout_id=new_id("ro", now, self._entropy),
                salt=int.from_bytes(self._entropy.token(8), "big"),
                now=now,
            )
            if _needs_two(spec) or not by.is_operator_token:
                state = msgspec.structs.replace(state, planned_by=by.name)
            about = f"rollout/{state.id}"
            detail = f"{spec.model} {spec.release} to {spec.selector or 'every device'}"
            lines = [line_by(by, "plan", about, detail)]
            if spec.again:
                lines.append(line_by(by, "again", about, second_chance(spec)))
            await self._store.save_rollout(
                state.id, _text(state), lines, now, lambda _none: self._engine.load(state)
            )
        return state.id

    async def _command(self, rollout: str, verb: Verb, command: Command, by: Principal) -> None:
        async with self._turn:
            now = self._clock.now()
            change = self._engine.command(rollout, verb, now=now, generation=command.generation)
            lines = [signed(line, by) for line in change.audit]
            if command.note:
                lines.append(line_by(by, "note", f"rollout/{rollout}", command.note))
            await self._save(change, lines, now)

    async def _evaluate(self) -> None:
        async with self._turn:
            now = self._clock.now()
            for rollout in self._engine.evaluated_rollouts():
                change = self._engine.evaluate(rollout, now)
                if change is not None:
                    await self._save(change, change.audit, now)

    async def _save(self, change: Change, lines: Sequence[AuditLine], now: float) -> None:
        state = change.state
        await self._store.save_rollout(
            state.id, _text(state), lines, now, lambda _none: self._engine.commit(change)
        )


def _needs_two(spec: RolloutSpec) -> bool:
    """Whether two people must approve. Then the operator token is one person, by any name."""
    return spec.approval.people > 1


def read_verb(text: str) -> Verb:
    """Raises OperatorError ``bad_request``."""
    try:
        return Verb(text)
    except ValueError as error:
        raise OperatorError(
            "bad_request", f"{text!r} is not a verb. The verbs are {', '.join(Verb)}.", field="verb"
        ) from error


def _text(state: RolloutState) -> str:
    return msgspec.json.encode(state).decode()
