"""The proxy for an address: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, upper or lower case.

Only ``http://`` proxies are supported. A loopback address is always asked directly.
"""

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from edgefleet.base.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``headers`` have its credentials."""

    host: str
    port: int
    headers: Mapping[str, str]


def proxy_for(url: SplitResult, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy for requests to ``url``. None if it is asked directly.

    Raises OperatorError ``setting_invalid`` for a proxy that is not supported.
    """
    name = f"{url.scheme}_proxy"
    names = (name, name.upper(), "all_proxy", "ALL_PROXY")
    named = next((one for one in names if environ.get(one)), None)
    host = (url.hostname or "").lower()
    if named is None or _is_loopback(host):
        return None
    port = url.port or (443 if url.scheme == "https" else 80)
    if _is_excluded(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    return _read(named, environ[named])


def _read(name: str, text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        parts, host, port = SplitResult("", "", "", "", ""), None, 0
    if parts.scheme != "http" or not host:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise OperatorError(
            "setting_invalid",
            f"{name} is {shown!r}, which is not an HTTP proxy.",
            field=name,
            hint="Give http://HOST:PORT, or unset it, or name the hub in NO_PROXY.",
        )
    if parts.username is None:
        return Proxy(host, port, {})
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    basic = base64.b64encode(secret.encode()).decode()
    return Proxy(host, port, {"Proxy-Authorization": f"Basic {basic}"})


def _is_excluded(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: ``*``, a name and its sub-domains, an address, a network."""
    for entry in no_proxy.lower().split(","):
        name = entry.strip()
        if name == "*":
            return True
        if "/" in name:
            if _is_in(host, name):
                return True
            continue
        bare, colon, number = name.rpartition(":")
        if colon and number.isdecimal() and ":" not in bare.strip("[]"):
            if int(number) != port:
                continue
            name = bare
        name = name.strip("[]").removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _is_in(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
