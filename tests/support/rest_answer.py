"""The answer of a handler of REST requests, without a listener."""

import asyncio
from collections.abc import Awaitable, Callable

from edgefleet.http1.message import Reply, Request


def answered(handler: Callable[[Request], Reply | Awaitable[Reply]], request: Request) -> Reply:
    """The reply. Raises the EdgefleetError of the handler."""

    async def ask() -> Reply:
        reply = handler(request)
        return reply if isinstance(reply, Reply) else await reply

    return asyncio.run(ask())
