"""A link to an address that cannot be used, such as one without ``http://`` or behind a bad proxy.

A device that has a release serves it all the same: each request fails with the error, as it does
while the network is away, and is tried again.
"""

from collections.abc import Iterable, Mapping

from edgefleet.base.errors import OperatorError
from edgefleet.base.network import Answer, Download, HttpLink, Link


def link_to(url: str) -> Link:
    """A link whose requests raise OperatorError ``setting_invalid`` if the address is not valid."""
    try:
        return HttpLink(url)
    except OperatorError as error:
        return _NoLink(error)


class _NoLink:
    def __init__(self, error: OperatorError) -> None:
        self._error = error

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        del method, path, headers, body, timeout_s
        raise self._error

    def download(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> Download:
        del path, headers, timeout_s
        raise self._error

    def close(self) -> None:
        return
