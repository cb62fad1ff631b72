"""The settings of a hub."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.hub.limits import ARTIFACT_BYTES, OPERATOR_REQUESTS_PER_S
from edgefleet.rollout.evidence.gate import Gate, judge

_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on. Port 0 means the last port of this data folder, or a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, field: str) -> "Address":
        """Read ``HOST:PORT`` or ``[IPv6]:PORT``. Raises OperatorError ``setting_invalid``."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""  # an IPv6 address must be in brackets
        if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise OperatorError("setting_invalid", f"{text!r} is not HOST:PORT.", field=field)
        return cls(host, int(port))

    @property
    def any_host(self) -> bool:
        """Whether the host means every address of the machine."""
        return self.host in _WILDCARDS

    def url(self, host: str | None = None) -> str:
        name = host or self.host
        return f"http://[{name}]:{self.port}" if ":" in name else f"http://{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class HubSettings:
    """``checkin_url`` is the URL that devices get if a proxy is in front of ``checkin_listen``.

    ``gate`` judges the waves of every rollout. It may be the operator's own function.
    """

    data_dir: Path
    listen: str = "127.0.0.1:8400"
    checkin_listen: str = "127.0.0.1:8401"
    checkin_url: str | None = None
    interval_s: float = 60.0
    tick_s: float = 1.0
    offline_after_s: float | None = None  # None: three intervals
    max_artifact_bytes: int = ARTIFACT_BYTES
    operator_requests_per_s: float = OPERATOR_REQUESTS_PER_S  # of each user
    allow_local_hooks: bool = False  # to loopback and link-local addresses
    gate: Gate = judge

    def __post_init__(self) -> None:
        Address.parse(self.listen, field="listen")
        Address.parse(self.checkin_listen, field="checkin_listen")
        for field in (
            "interval_s", "tick_s", "offline_s", "max_artifact_bytes", "operator_requests_per_s",
        ):  # fmt: skip
            value: float = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise OperatorError(
                    "setting_invalid", f"{value} is not a number above 0.", field=field
                )

    @property
    def offline_s(self) -> float:
        """Seconds without a check-in after which a device counts as offline."""
        return 3 * self.interval_s if self.offline_after_s is None else self.offline_after_s
