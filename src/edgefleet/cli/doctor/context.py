"""What the checks look at. Each thing is found once, when a check first asks for it."""

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
class Ground:
    """The machine it runs on, and the hub that the options name."""

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
        """What the hub says of itself, or why it cannot be asked."""
        if isinstance(self.access, EdgefleetError):
            return self.access
        try:
            return self._client(self.access).health()
        except EdgefleetError as error:
            return error

    @cached_property
    def hub(self) -> HubClient | None:
        """A client whose token the hub accepts, or None."""
        if isinstance(self.access, EdgefleetError) or isinstance(self.health, EdgefleetError):
            return None
        client = self._client(self.access)
        try:
            client.fleet()
        except EdgefleetError:  # the token's own check says why
            return None
        return client

    @cached_property
    def hub_time(self) -> float | None:
        """The hub's clock, where it answers and says."""
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
