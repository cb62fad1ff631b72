"""The keys of the provider, and the check of a signature. Pure.

A key is chosen by the token's ``kid`` and by the type that the algorithm needs, before the library
sees the token. So no public key is ever used as an HMAC secret, and ``none`` is no algorithm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from edgefleet.base.base64url import from_base64url
from edgefleet.base.errors import OperatorError
from edgefleet.hub.oidc.limits import KEYS, RSA_BITS, TOKEN_BYTES

_EC, _RSA = "EC", "RSA"
ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    "RS256": (_RSA, ""),
    "RS384": (_RSA, ""),
    "RS512": (_RSA, ""),
    "PS256": (_RSA, ""),
    "PS384": (_RSA, ""),
    "PS512": (_RSA, ""),
    "ES256": (_EC, "P-256"),
    "ES384": (_EC, "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""The accepted algorithms, each with the type and the curve of its keys."""

PublicKey = RSAKey | ECKey | OKPKey


class _Registry(jws.JWSRegistry):
    max_header_length = TOKEN_BYTES  # a header may have a chain of certificates, which is not read


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Header:
    algorithm: str
    kid: str | None


def read_keys(body: bytes) -> tuple[Mapping[str, Any], ...]:
    """The key set of the provider. Raises OperatorError ``oidc_refused``."""
    try:
        keys = msgspec.json.decode(body, type=_Set).keys
    except (msgspec.DecodeError, RecursionError) as error:
        raise refused("The provider's keys are not a JSON Web Key Set.") from error
    if len(keys) > KEYS:
        raise refused(f"The provider has {len(keys)} keys; at most {KEYS} are read.")
    return tuple(keys)


def read_header(token: str) -> Header:
    """The header of a token, which is not trusted yet. Raises OperatorError ``oidc_refused``."""
    if len(token) > TOKEN_BYTES or not token.isascii():
        raise refused(f"The ID token has more than {TOKEN_BYTES} bytes.")
    if token.count(".") != 2:
        raise refused("The ID token is not a signed token of three parts.")
    head = token.partition(".")[0]
    try:
        header = msgspec.json.decode(from_base64url(head), type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise refused("The header of the ID token cannot be read.") from error
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refused(f"The ID token has the algorithm {str(algorithm)[:20]!r}.")
    if not (kid is None or isinstance(kid, str)):
        raise refused("The kid of the ID token is not a text.")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise refused(f"The token is a {str(kind)[:20]!r}, and no ID token.")
    if "crit" in header or "b64" in header:
        raise refused("The ID token has a critical header, which is not supported.")
    return Header(algorithm, kid)


def find_key(keys: tuple[Mapping[str, Any], ...], header: Header) -> PublicKey | None:
    """The key that must have signed a token with this header. None if there is none.

    A token without ``kid`` is accepted if exactly one key fits its algorithm.
    """
    fitting = [key for key in keys if _fits(key, header)]
    if header.kid is None and len(fitting) > 1:
        return None
    return next(_imported(fitting), None)


def verified_payload(token: str, key: PublicKey, header: Header) -> bytes:
    """The payload of the token. Raises OperatorError ``oidc_refused`` for a wrong signature."""
    registry = _Registry(algorithms=[header.algorithm], strict_check_header=False)
    try:
        found = jws.deserialize_compact(token, key, registry=registry)
    except (JoseError, ValueError, RecursionError) as error:
        raise refused("The signature of the ID token is wrong.") from error
    return found.payload


def refused(message: str) -> OperatorError:
    return OperatorError("oidc_refused", message)


def _fits(key: Mapping[str, Any], header: Header) -> bool:
    kind, curve = ALGORITHMS[header.algorithm]
    return (
        key.get("kty") == kind
        and (not curve or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", header.algorithm) in (header.algorithm, "EdDSA" if curve else "")
        and (header.kid is None or key.get("kid") == header.kid)
    )


def _imported(keys: list[Mapping[str, Any]]) -> Iterator[PublicKey]:
    """The keys that can be used."""
    for key in keys:
        public = {name: value for name, value in key.items() if name in _PUBLIC}
        try:
            made = import_key(public)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(made, RSAKey) and made.public_key.key_size not in RSA_BITS:
            continue
        if isinstance(made, (RSAKey, ECKey, OKPKey)):
            yield made


_PUBLIC: Final = frozenset({"kty", "crv", "x", "y", "n", "e", "kid"})
"""The members that are read. Others, such as a chain of certificates, are not."""
