"""A request and its connection, beyond what ASGI tells an application."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgefleet.hub.connection_places import Client, ConnectionPlaces, Worth

EXCHANGE: Final = "edgefleet.exchange"
"""The key in the scope of a request. Servers other than the hub's own have none."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """``sent`` is called with bytes of the body that did not pass through ``send``."""

    client: Client
    places: ConnectionPlaces
    transport: asyncio.Transport
    sent: Callable[[int], None]


def exchange_of(scope: Mapping[str, Any]) -> Exchange | None:
    found = scope.get(EXCHANGE)
    return found if isinstance(found, Exchange) else None


def credential_shown(scope: Mapping[str, Any], worth: Worth) -> None:
    """The request has a valid credential: its connection is worth more from now on."""
    exchange = exchange_of(scope)
    if exchange is not None:
        exchange.places.shown(exchange.client, worth)
