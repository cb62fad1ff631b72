"""The web hooks of the hub. Each has a task of its own, so none waits for another.

A hook delivers the events of its kinds in order, each until it is delivered or dead. Its position
is stored every two seconds: after a crash the events since then are delivered once more.
"""

import asyncio
import contextlib
import ipaddress
from dataclasses import dataclass, field, replace

from edgefleet import __version__
from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.hub.actors import line_by
from edgefleet.hub.event_log import EventLog
from edgefleet.hub.hooks.post import DeliveryError, Poster, check_url, is_open
from edgefleet.hub.limits import (
    DEAD_LETTERS,
    HOOK_ATTEMPTS,
    HOOK_DEFECT_PAUSE_S,
    HOOK_IDLE_S,
    HOOK_REPLAY_S,
    HOOK_RETRY_MAX_S,
    HOOK_RETRY_S,
    HOOKS,
)
from edgefleet.hub.store import hooks as writes
from edgefleet.hub.store.hooks import StoredHook
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.events import Event, check_kinds, is_wanted
from edgefleet.protocol.hooks import (
    DELIVERY,
    SIGNATURE,
    AddHook,
    ChangeHook,
    CreatedHook,
    DeadLetter,
    DeadLetters,
    Hooks,
    HookView,
    RemovedHook,
    Replayed,
    ReplayLetters,
    signature,
)
from edgefleet.protocol.wire import encode
from edgefleet.security.api_tokens import new_secret
from edgefleet.security.principals import Principal


@dataclass(slots=True)
class _Running:
    """A hook in memory. ``hook.position`` is ahead of the stored one until the next flush."""

    hook: StoredHook
    stored: int
    failure: str = ""
    retry_at: float | None = None
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class WebHooks:
    """Call ``start`` on the loop that runs the deliveries."""

    def __init__(
        self,
        store: SqliteStore,
        log: EventLog,
        clock: Clock,
        entropy: Entropy,
        *,
        allow_local: bool,
    ) -> None:
        """``allow_local``: hooks may go to this machine and to link-local addresses."""
        self._store = store
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._poster = Poster(allow_local=allow_local)
        self._hooks: dict[str, _Running] = {}
        self._is_started = False

    def load(self) -> None:
        """Restore the hooks from the store."""
        self._hooks = {
            hook.id: _Running(hook, hook.position) for hook in self._store.reader.hooks.hooks()
        }

    def start(self) -> None:
        """Begin to deliver."""
        self._is_started = True
        for running in self._hooks.values():
            self._run(running)

    async def close(self) -> None:
        """Stop all deliveries. An event on its way is delivered once more after the next start."""
        tasks = [running.task for running in self._hooks.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._poster.close()

    async def flush(self) -> None:
        """Store the positions that have changed. Raises DeviceError."""
        moved = [one for one in self._hooks.values() if one.hook.position != one.stored]
        if not moved:
            return
        states = [(one.hook.id, one.hook.position, one.hook.missed) for one in moved]
        await self._store.writer.submit(writes.save_positions(states))
        for one, (_, position, _) in zip(moved, states, strict=True):
            one.stored = position

    # Commands.

    def views(self) -> Hooks:
        return Hooks(hooks=tuple(map(self._view, self._hooks.values())))

    async def add(self, request: AddHook, by: Principal) -> CreatedHook:
        """Raises OperatorError ``bad_request`` or ``hook_address_refused``."""
        parts, kinds = check_url(request.url), check_kinds(request.kinds)
        self._check_literal(parts.hostname or "")
        if len(self._hooks) >= HOOKS:
            raise OperatorError("bad_request", f"The hub has {HOOKS} hooks, which is the limit.")
        hook = StoredHook(
            id=self._entropy.token(5).hex(),
            url=request.url,
            kinds=kinds,
            note=request.note,
            secret=new_secret(self._entropy),
            created_at=self._clock.now(),
            position=self._log.last,
        )
        where = f"{parts.scheme}://{parts.hostname}"  # the rest of an address may be a secret
        await self._store.change(
            writes.save_hook(hook),
            [line_by(by, "add_hook", f"hook/{hook.id}", f"{where}. {request.note}".rstrip(". "))],
            hook.created_at,
            self._keep,
        )
        return CreatedHook(secret=hook.secret, view=self._view(self._hooks[hook.id]))

    async def change(self, id_: str, request: ChangeHook, by: Principal) -> HookView:
        """Raises OperatorError ``not_found``."""
        running = self._hook(id_)
        if running.hook.enabled != request.enabled:
            action = "enable_hook" if request.enabled else "disable_hook"
            hook = replace(running.hook, enabled=request.enabled)
            await self._store.change(
                writes.save_hook(hook),
                [line_by(by, action, f"hook/{id_}")],
                self._clock.now(),
                self._keep,
            )
        return self._view(self._hook(id_))

    async def remove(self, id_: str, by: Principal) -> RemovedHook:
        """Raises OperatorError ``not_found``."""
        self._hook(id_)

        def committed(_none: None) -> None:
            gone = self._hooks.pop(id_, None)
            if gone is not None and gone.task is not None:
                gone.task.cancel()

        line = line_by(by, "remove_hook", f"hook/{id_}")
        await self._store.change(writes.remove_hook(id_), [line], self._clock.now(), committed)
        return RemovedHook(id=id_)

    def letters(self, id_: str) -> DeadLetters:
        """Raises OperatorError ``not_found``."""
        self._hook(id_)
        return DeadLetters(letters=self._store.reader.hooks.letters(id_))

    async def replay(self, id_: str, request: ReplayLetters) -> Replayed:
        """Deliver dead letters once more, oldest first, until one fails or the time is over.

        Raises OperatorError ``not_found``.
        """
        hook = self._hook(id_).hook
        wanted = set(request.numbers)
        letters = [one for one in self.letters(id_).letters if not wanted or one.number in wanted]
        until, delivered, reason = self._clock.monotonic() + HOOK_REPLAY_S, 0, ""
        for letter in letters:
            if self._clock.monotonic() >= until:
                reason = f"Stopped after {HOOK_REPLAY_S:g} s: replay the rest once more."
                break
            try:
                await self._post(hook, letter.event)
            except DeliveryError as error:
                reason = str(error)
                break
            await self._store.writer.submit(writes.remove_letter(letter.number))
            delivered += 1
        return Replayed(delivered=delivered, failed=len(letters) - delivered, reason=reason)

    # Delivery.

    def _keep(self, hook: StoredHook) -> None:
        """Run a new hook, or go on with the changed one at the position that it has now."""
        before, stored = self._hooks.get(hook.id), hook.position
        if before is not None:
            stored = before.stored
            hook = replace(hook, position=before.hook.position, missed=before.hook.missed)
            if before.task is not None:
                before.task.cancel()
        self._hooks[hook.id] = running = _Running(hook, stored)
        if self._is_started:
            self._run(running)

    def _run(self, running: _Running) -> None:
        if running.hook.enabled:
            running.task = asyncio.get_running_loop().create_task(self._deliver_all(running))

    async def _deliver_all(self, running: _Running) -> None:
        while True:
            try:
                await self._deliver_next(running)
            except EdgefleetError as error:  # the store takes no writes now
                await self._pause(running, str(error), HOOK_RETRY_MAX_S)
            except Exception as error:  # noqa: BLE001 - a defect of one hook must not end the others
                await self._pause(running, f"Defect: {error!r}", HOOK_DEFECT_PAUSE_S)

    async def _deliver_next(self, running: _Running) -> None:
        """Deliver the events that are there, or wait for some."""
        position = running.hook.position
        if position > self._log.last or position < self._log.first:
            # Behind the log, or ahead of it after the hub was restored from an older copy.
            start = min(self._log.last, max(position, self._log.first))
            self._move(running, start, missed=max(0, start - position))
            return
        events = self._log.after(position)
        for event in events:
            if is_wanted(event.kind, running.hook.kinds):
                await self._deliver(running, event)
            else:
                self._move(running, event.id)
        if not events:
            await self._log.wait(position, HOOK_IDLE_S)

    async def _deliver(self, running: _Running, event: Event) -> None:
        """Deliver one event, or bury it after ``HOOK_ATTEMPTS`` attempts."""
        for attempt in range(1, HOOK_ATTEMPTS + 1):
            try:
                await self._post(running.hook, event)
            except DeliveryError as error:
                running.failure = str(error)
            else:
                running.failure, running.retry_at = "", None
                self._move(running, event.id)
                return
            if attempt < HOOK_ATTEMPTS:
                pause = min(HOOK_RETRY_MAX_S, HOOK_RETRY_S * 2 ** (attempt - 1))
                jitter = 0.5 + self._entropy.uniform() / 2
                await self._pause(running, running.failure, pause * jitter)
        letter = DeadLetter(
            number=0,  # the store gives it
            event=event,
            at=self._clock.now(),
            attempts=HOOK_ATTEMPTS,
            reason=running.failure,
        )
        await self._store.writer.submit(writes.bury(running.hook, letter, DEAD_LETTERS))
        self._move(running, event.id)
        running.stored = event.id

    async def _post(self, hook: StoredHook, event: Event) -> None:
        body, at = encode(event), int(self._clock.now())
        headers = {
            SIGNATURE: signature(hook.secret, at, body),
            DELIVERY: f"{hook.id}/{event.id}",
            "User-Agent": f"edgefleet/{__version__}",
        }
        await self._poster.post(hook.url, headers, body)

    async def _pause(self, running: _Running, failure: str, seconds: float) -> None:
        running.failure, running.retry_at = failure, self._clock.now() + seconds
        await asyncio.sleep(seconds)
        running.retry_at = None

    def _move(self, running: _Running, position: int, *, missed: int = 0) -> None:
        hook = running.hook
        running.hook = replace(hook, position=position, missed=hook.missed + missed)

    def _hook(self, id_: str) -> _Running:
        running = self._hooks.get(id_)
        if running is None:
            raise OperatorError("not_found", f"There is no hook {id_}.", field="hook")
        return running

    def _check_literal(self, host: str) -> None:
        """Refuse an address of this machine at once; a name is looked up for each delivery."""
        with contextlib.suppress(ValueError):
            if not self._poster.allow_local and not is_open(ipaddress.ip_address(host)):
                raise OperatorError(
                    "hook_address_refused",
                    f"{host} is an address of this machine or link, or of no single machine.",
                    field="url",
                )

    def _view(self, running: _Running) -> HookView:
        hook = running.hook
        return HookView(
            id=hook.id,
            url=hook.url,
            kinds=hook.kinds,
            note=hook.note,
            created_at=hook.created_at,
            enabled=hook.enabled,
            position=hook.position,
            behind=max(0, self._log.last - hook.position),
            missed=hook.missed,
            dead_letters=self._store.reader.hooks.letter_count(hook.id),
            failure=running.failure,
            retry_at=running.retry_at,
        )
