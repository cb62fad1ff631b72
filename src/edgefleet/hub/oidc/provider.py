"""The provider: its addresses and keys, fetched with limits and kept for a while."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote_plus

import msgspec

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.hub.oidc.fetching import Fetching, unavailable
from edgefleet.hub.oidc.keys import (
    PublicKey,
    find_key,
    read_header,
    read_keys,
    refused,
    verified_payload,
)
from edgefleet.hub.oidc.limits import (
    ADDRESSES_KEPT_S,
    FAILURE_KEPT_S,
    KEYS_AGAIN_S,
    KEYS_KEPT_S,
)
from edgefleet.hub.oidc.settings import OidcSettings, check_url

T = TypeVar("T")


class Addresses(msgspec.Struct, frozen=True):
    """The part of the discovery document that is used (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(
        default_factory=lambda: ["client_secret_basic"]
    )
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct):
    id_token: str = ""


class _Refusal(msgspec.Struct):
    error: str = ""


class _Kept(Generic[T]):
    """A fetched value with its age. One fetch at a time; a failure is kept for a short while."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Clock, kept_s: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept_s = kept_s
        self._turn = asyncio.Lock()
        self._value: T | None = None
        self._fetched_at = 0.0
        self._failure: tuple[EdgefleetError, float] | None = None

    async def get(self, kept_s: float | None = None) -> T:
        """The value, of at most this age in seconds. Raises the error of the fetch."""
        oldest = self._kept_s if kept_s is None else kept_s
        async with self._turn:
            now = self._clock.monotonic()
            if self._value is not None and now - self._fetched_at < oldest:
                return self._value
            if self._failure is not None and now - self._failure[1] < FAILURE_KEPT_S:
                raise self._failure[0]
            try:
                value = await self._fetch()
            except EdgefleetError as error:
                self._failure = (error, self._clock.monotonic())
                raise
            self._value, self._fetched_at, self._failure = value, now, None
            return value


class Provider:
    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        self._settings = settings
        self._fetching = Fetching()
        self._addresses = _Kept(self._fetch_addresses, clock, ADDRESSES_KEPT_S)
        self._keys = _Kept(self._fetch_keys, clock, KEYS_KEPT_S)

    async def addresses(self) -> Addresses:
        """Raises NetworkError ``oidc_unavailable``."""
        return await self._addresses.get()

    async def id_token(self, code: str, verifier: str) -> str:
        """Exchange a code, which works once, for an ID token.

        Raises OperatorError ``oidc_refused``, NetworkError ``oidc_unavailable``.
        """
        addresses = await self.addresses()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._settings.redirect_uri,
            "code_verifier": verifier,
        }
        headers = self._authenticate(fields, addresses)
        answer = await self._fetching.post(addresses.token_endpoint, fields, headers)
        if answer.status >= 500:
            raise unavailable(f"{addresses.token_endpoint} answers with HTTP {answer.status}.")
        if answer.status != 200:
            raise refused(f"The provider refused the code ({_error_of(answer.body)}).")
        try:
            return msgspec.json.decode(answer.body, type=_Tokens).id_token
        except (msgspec.DecodeError, RecursionError) as error:
            raise refused("The provider's answer to the code cannot be read.") from error

    async def payload(self, token: str) -> bytes:
        """The payload of an ID token that the provider signed.

        Raises OperatorError ``oidc_refused``, NetworkError ``oidc_unavailable``.
        """
        header = read_header(token)
        key: PublicKey | None = find_key(await self._keys.get(), header)
        if key is None:
            key = find_key(await self._keys.get(KEYS_AGAIN_S), header)
        if key is None:
            raise refused("The ID token is signed with a key that the provider does not have.")
        return verified_payload(token, key, header)

    def _authenticate(self, fields: dict[str, str], addresses: Addresses) -> Mapping[str, str]:
        """The credentials of the hub: headers, or more fields of the form."""
        secret, name = self._settings.client_secret, self._settings.client_id
        supported = addresses.token_endpoint_auth_methods_supported
        if secret and "client_secret_basic" in supported:
            pair = f"{quote_plus(name)}:{quote_plus(secret)}"
            return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        fields["client_id"] = name
        if secret:
            fields["client_secret"] = secret
        return {}

    async def _fetch_addresses(self) -> Addresses:
        issuer = self._settings.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            found = msgspec.json.decode(await self._fetching.get(url), type=Addresses)
        except (msgspec.DecodeError, RecursionError) as error:
            raise unavailable(f"{url} is not a discovery document ({error}).") from error
        if found.issuer != issuer:
            raise unavailable(
                f"{url} names the issuer {found.issuer[:200]!r}: if it is yours, give exactly this "
                "to --oidc-issuer."
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _check_address(name, getattr(found, name))
        return found

    async def _fetch_keys(self) -> tuple[Mapping[str, Any], ...]:
        addresses = await self.addresses()
        return read_keys(await self._fetching.get(addresses.jwks_uri))


def _check_address(name: str, url: str) -> None:
    """Raises NetworkError ``oidc_unavailable`` for an address that is not https."""
    try:
        check_url(url.partition("?")[0], field=name)
    except OperatorError as error:
        raise unavailable(f"The provider's {name} cannot be used: {error.message}") from error


def _error_of(body: bytes) -> str:
    """The error code of a refusal, which is short and for people."""
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, RecursionError):
        code = ""
    return code[:80] if code and code.isascii() and code.isprintable() else "without a reason"
