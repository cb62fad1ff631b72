"""One POST to the URL of a web hook.

Own HTTP/1.1 in a few lines: a deadline for all of it, no redirects, no more of the answer than its
status, and a connection to the very address that was checked (a name may change between two
look-ups).
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

from edgefleet.base.errors import OperatorError
from edgefleet.hub.limits import HOOK_STATUS_LINE_BYTES, HOOK_TIMEOUT_S, HOOKS

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class DeliveryError(Exception):
    """The event was not delivered; the text says why."""


def check_url(url: str) -> SplitResult:
    """The parts of ``url``. Raises OperatorError ``bad_request``."""
    parts = urlsplit("")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not (url.isascii() and url.isprintable()) or " " in url or "@" in parts.netloc:
        raise OperatorError(
            "bad_request",
            f"{url[:200]!r} is not an address for a web hook.",
            field="url",
            hint="Give http://host/path or https://host/path, without a user.",
        )
    return parts


def is_open(address: Ip) -> bool:
    """Whether a hook may go there: not to this machine, its link, or no single machine.

    Link-local addresses include those of cloud metadata (169.254.169.254).
    """
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if isinstance(address, ipaddress.IPv6Address) and (address.sixtofour or address.teredo):
        return False
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_reserved
    )


class Poster:
    """Sends events. ``allow_local``: also to loopback and link-local addresses."""

    def __init__(self, *, allow_local: bool) -> None:
        self.allow_local = allow_local
        self._lookups = ThreadPoolExecutor(HOOKS, "hook-lookup")  # no thread before its first use

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Deliver ``body``. Raises DeliveryError. Takes at most ``HOOK_TIMEOUT_S``."""
        try:
            async with asyncio.timeout(HOOK_TIMEOUT_S):
                status = await self._post(check_url(url), headers, body)
        except TimeoutError as error:
            raise DeliveryError(f"No answer within {HOOK_TIMEOUT_S:g} s.") from error
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise DeliveryError(f"{error}"[:200] or type(error).__name__) from error
        if not 200 <= status < 300:
            raise DeliveryError(f"The answer had the status {status}.")

    async def _post(self, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> int:
        reader, writer = await self._connect(parts)
        try:
            target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
            words = (await reader.readuntil(b"\n")).split()
        finally:
            writer.transport.abort()
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise DeliveryError("The answer is not HTTP/1.1.")
        return int(words[1])

    async def _connect(
        self, parts: SplitResult
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first address that accepts one."""
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        failure = OSError(f"{host} has no address.")
        for address in await self._addresses(host, port):
            try:
                return await asyncio.open_connection(
                    address,
                    port,
                    limit=HOOK_STATUS_LINE_BYTES,
                    ssl=self._context if is_tls else None,
                    server_hostname=host if is_tls else None,
                )
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of ``host`` that a hook may go to."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        addresses = [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
        allowed = [str(one) for one in addresses if self.allow_local or is_open(one)]
        if addresses and not allowed:
            raise DeliveryError(
                f"{host} has only addresses of this machine or link, which hooks may not use."
            )
        return allowed

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()
