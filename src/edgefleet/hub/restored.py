"""After a restore of the hub from an older copy: which devices know more, and the acceptance."""

import asyncio
from collections import OrderedDict
from functools import partial

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError
from edgefleet.base.ids import id_after
from edgefleet.base.texts import counted
from edgefleet.hub.actors import line_by
from edgefleet.hub.limits import UNKNOWN_DEVICES
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.restored import AcceptedRestored, AcceptRestored
from edgefleet.rollout.engine import Engine
from edgefleet.security.principals import Principal


class Restored:
    """Devices ahead of the hub, and credentials of this hub whose devices it does not know."""

    def __init__(self, store: SqliteStore, engine: Engine, clock: Clock) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._unknown: OrderedDict[str, None] = OrderedDict()

    def load(self) -> None:
        """Restore from the store."""
        given, accepted = self._store.reader.load_ahead()
        self._engine.ahead.load(given, accepted)

    @property
    def ahead_count(self) -> int:
        return len(self._engine.ahead)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of devices with a credential of this hub that the hub does not know."""
        return tuple(self._unknown)

    def note_unknown(self, name: str) -> None:
        """A device with a valid credential is not known. Keeps the last ``UNKNOWN_DEVICES``."""
        self._unknown[name] = None
        self._unknown.move_to_end(name)
        if len(self._unknown) > UNKNOWN_DEVICES:
            self._unknown.popitem(last=False)

    def check_allowed(self, name: str) -> None:
        """Raises DeviceError ``reenrolment_not_allowed`` until an operator accepted a restore."""
        if not self._engine.ahead.accepted:
            self.note_unknown(name)
            raise DeviceError(
                "reenrolment_not_allowed",
                f"This hub does not know {name}, whose credential it made.",
            )

    def known_again(self, name: str) -> None:
        """The device has enrolled again."""
        self._unknown.pop(name, None)

    async def flush(self) -> None:
        """Store the devices that came ahead of the hub since, before their reports."""
        ahead = self._engine.ahead
        rows = tuple(ahead.changed)
        if not rows:
            return
        ahead.changed.clear()
        try:
            await self._store.save_ahead({row: ahead.given(row) for row in rows})
        except BaseException:
            ahead.changed.update(rows)
            raise

    async def accept(self, request: AcceptRestored, by: Principal) -> AcceptedRestored:
        """Accept the state of this hub: offers go out again, and unknown devices may enrol again.

        A device that runs the release of a rollout which the hub knows is recorded as confirmed.
        """
        return await asyncio.shield(self._accept(request, by))

    async def _accept(self, request: AcceptRestored, by: Principal) -> AcceptedRestored:
        engine, now = self._engine, self._clock.now()
        devices = tuple(engine.ahead.devices())
        for row, given in devices:
            outcomes = [
                Outcome(
                    id=f"restored-{rollout}",
                    rollout=rollout,
                    release=engine.rollout(rollout).state.spec.release,
                    kind=OutcomeKind.CONFIRMED,
                    at=now,
                    detail="Recorded after a restore of the hub, by the report of the device.",
                )
                for _, rollout in given
                if engine.has_rollout(rollout)
            ]
            if outcomes:
                record = partial(self._record, row, now)
                await self._store.save_outcomes(row, outcomes, now, record)
        text = f"{counted(len(devices), 'device')} ahead of the hub. {request.note}".rstrip(". ")
        line = line_by(by.named(request.person), "accept_restored", "fleet", text)
        accepted = id_after("ro", now)
        await self._store.save_accepted_restored(
            accepted, line, now, lambda _none: engine.ahead.accept(accepted)
        )
        return AcceptedRestored(devices=len(devices), unknown=self.unknown)

    def _record(self, row: int, now: float, fresh: tuple[Outcome, ...]) -> None:
        for outcome in fresh:
            self._engine.intake.record(row, outcome, now)
