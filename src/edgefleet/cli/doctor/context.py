"""The facts that the checks read. Each is read once, when a check first needs it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.connect import access, data_dir
from edgefleet.cli.invocation import Invocation
from edgefleet.client.discover import HubAccess
from edgefleet.client.hub import HubClient
from edgefleet.protocol.operator import Health


@dataclass
class Context:
    """The local machine, and the hub of the options."""

    invocation: Invocation
    clock: Clock

    @property
    def folder(self) -> Path:
        return data_dir(self.invocation)

    @cached_property
    def access(self) -> HubAccess | EdgefleetError:
        try:
            return access(self.invocation)
        except EdgefleetError as error:
            return error

    @cached_property
    def health(self) -> Health | EdgefleetError:
        """The hub's health report, or the error of the request."""
        if isinstance(self.access, EdgefleetError):
            return self.access
        try:
            return self._client(self.access).health()
        except EdgefleetError as error:
            return error

    @cached_property
    def hub(self) -> HubClient | None:
        """A client whose token the hub accepts. None if the hub or the token fails."""
        if isinstance(self.access, EdgefleetError) or isinstance(self.health, EdgefleetError):
            return None
        client = self._client(self.access)
        try:
            client.fleet()
        except EdgefleetError:  # the check of the token reports the error
            return None
        return client

    @cached_property
    def hub_time(self) -> float | None:
        """The hub's time, in seconds since the epoch. None if the hub does not send it."""
        if isinstance(self.access, EdgefleetError) or isinstance(self.health, EdgefleetError):
            return None
        return self._client(self.access).hub_time()

    @cached_property
    def _kept(self) -> dict[str, HubClient]:
        return {}

    def _client(self, where: HubAccess) -> HubClient:
        return self._kept.setdefault(where.url, where.client())

    def close(self) -> None:
        for client in self._kept.values():
            client.close()
