"""The hub's interface for the page: reads, and operations that change something."""

from collections.abc import Mapping
from typing import Protocol

from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.device_figures import DeviceFigures
from edgefleet.protocol.operator import (
    AuditPage,
    DeviceHistory,
    DevicePage,
    DeviceView,
    FleetView,
    Models,
    ModelView,
    QuarantinedDevices,
    ReleaseView,
    RolloutHistory,
    Rollouts,
    Unquarantine,
)
from edgefleet.protocol.rollout import (
    ApproveRequest,
    Command,
    Freeze,
    RolloutView,
    Verb,
)
from edgefleet.protocol.why import WaitReport
from edgefleet.security.principals import Principal


class ProviderLogins(Protocol):
    """Logins with an OpenID Connect provider. ``is_https``: whether the page is."""

    @property
    def issuer(self) -> str: ...

    @property
    def is_https(self) -> bool: ...

    @property
    def cookie(self) -> str:
        """The name of the cookie of a login in progress."""
        ...

    @property
    def cookie_s(self) -> float: ...

    async def begin(self, next_: str, /) -> tuple[str, str]:
        """The address at the provider, and the cookie. Raises NetworkError."""
        ...

    async def finish(
        self, query: Mapping[str, str], cookie: str, address: str, /
    ) -> tuple[str, str]:
        """A new session, and the page to open. Raises OperatorError or NetworkError."""
        ...


class Logins(Protocol):
    """Logins and sessions. A session is the secret in the cookie."""

    @property
    def cookie(self) -> str:
        """The name of the cookie."""
        ...

    @property
    def session_s(self) -> float: ...

    @property
    def provider(self) -> ProviderLogins | None: ...

    def principal(self, session: str, address: str, /) -> Principal | None:
        """None if the session is not valid."""
        ...

    async def enter(self, name: str, secret: str, address: str, /) -> str:
        """Open a session. Raises OperatorError ``unauthenticated`` or ``too_many_logins``."""
        ...

    async def enter_by_link(self, code: str, address: str, /) -> str:
        """Open a session. Raises OperatorError ``unauthenticated``."""
        ...

    async def log_out(self, session: str, /) -> None: ...


class Reads(Protocol):
    """The part of the hub that the page uses. Unknown names raise ``not_found``."""

    @property
    def logins(self) -> Logins: ...

    def fleet(self) -> FleetView: ...
    def models(self) -> Models: ...
    def model(self, name: str, /) -> ModelView: ...
    def release(self, model: str, release: str, /) -> ReleaseView: ...
    def rollouts(self, model: str = "", /) -> Rollouts: ...
    def rollout(self, rollout_id: str, /) -> RolloutView: ...
    def history(self, rollout_id: str, /) -> RolloutHistory: ...
    def devices(self, after: str | None, limit: int, only: DeviceFilter, /) -> DevicePage: ...
    def device(self, name: str, /) -> DeviceView: ...
    def device_history(self, name: str, /) -> DeviceHistory: ...
    def device_figures(self, name: str, /) -> DeviceFigures: ...
    def why_device(self, name: str, /) -> WaitReport: ...
    def why_rollout(self, rollout_id: str, /) -> WaitReport: ...
    def why_release(self, model: str, release: str, /) -> WaitReport: ...
    def frozen(self) -> Freeze: ...
    def quarantined(self) -> QuarantinedDevices: ...
    def audit(self, before: int | None, limit: int, /) -> AuditPage: ...
    async def command(
        self, rollout_id: str, verb: Verb, command: Command, by: Principal, /
    ) -> RolloutView: ...
    async def approve(
        self, rollout_id: str, request: ApproveRequest, by: Principal, /
    ) -> RolloutView: ...
    async def freeze(self, request: Freeze, by: Principal, /) -> Freeze: ...
    async def unquarantine(
        self, name: str, request: Unquarantine, by: Principal, /
    ) -> DeviceView: ...
