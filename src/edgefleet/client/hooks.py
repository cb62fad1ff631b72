"""The part of the client for web hooks."""

from edgefleet.client.people import Ask
from edgefleet.protocol.hooks import (
    AddHook,
    ChangeHook,
    CreatedHook,
    DeadLetters,
    Hooks,
    HookView,
    RemovedHook,
    RemoveHook,
    Replayed,
    ReplayLetters,
)


class HookCalls:
    """One method per endpoint. The methods raise as those of ``HubClient`` do."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def hooks(self) -> Hooks:
        return self._ask("hooks", Hooks)

    def add(self, request: AddHook) -> CreatedHook:
        """Add a hook. The answer alone has the key of its signatures."""
        return self._ask("hook_add", CreatedHook, body=request)

    def change(self, hook: str, request: ChangeHook) -> HookView:
        """Enable or disable a hook."""
        return self._ask("hook_change", HookView, parameters={"hook": hook}, body=request)

    def remove(self, hook: str) -> RemovedHook:
        """Remove a hook and its dead letters."""
        names = {"hook": hook}
        return self._ask("hook_remove", RemovedHook, parameters=names, body=RemoveHook())

    def letters(self, hook: str) -> DeadLetters:
        """The events that could not be delivered, oldest first."""
        return self._ask("hook_letters", DeadLetters, parameters={"hook": hook})

    def replay(self, hook: str, request: ReplayLetters) -> Replayed:
        """Deliver dead letters once more, until one fails."""
        return self._ask("hook_replay", Replayed, parameters={"hook": hook}, body=request)
