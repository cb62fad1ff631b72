"""The checks of an ID token's claims (OpenID Connect Core 1.0, section 3.1.3.7). Pure."""

import hmac
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.hub.oidc.keys import refused
from edgefleet.hub.oidc.limits import CLOCK_SKEW_S, GROUPS, SUBJECT_CHARS
from edgefleet.protocol.people import ROLES as PERMISSIONS
from edgefleet.protocol.people import Role


@dataclass(frozen=True, slots=True)
class Expected:
    """The values that the token of one login must have. ``began_at``: in seconds since 1970."""

    issuer: str
    client_id: str
    nonce: str
    began_at: float


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at the provider: (issuer, subject), which never changes. The rest is for people."""

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]


def read_claims(payload: bytes) -> Mapping[str, Any]:
    """Raises OperatorError ``oidc_refused``."""
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise refused("The ID token has no JSON object in it.") from error


def identify(
    claims: Mapping[str, Any], expected: Expected, *, groups_claim: str, now: float
) -> Identity:
    """The person whom the claims name. Raises OperatorError ``oidc_refused``."""
    if claims.get("iss") != expected.issuer:
        raise refused("The ID token is of another issuer.")
    _check_audience(claims, expected.client_id)
    if _number(claims, "exp") <= now - CLOCK_SKEW_S:
        raise refused("The ID token has expired. Compare the clocks of hub and provider.")
    issued_at = _number(claims, "iat")
    if not expected.began_at - CLOCK_SKEW_S <= issued_at <= now + CLOCK_SKEW_S:
        raise refused(
            "The ID token was not issued during this login. Compare the clocks of hub and provider."
        )
    if "nbf" in claims and _number(claims, "nbf") > now + CLOCK_SKEW_S:
        raise refused("The ID token is not valid yet. Compare the clocks of hub and provider.")
    nonce = claims.get("nonce")
    if not _is_ascii(nonce) or not hmac.compare_digest(nonce, expected.nonce):
        raise refused("The ID token was made for another login.")
    subject = claims.get("sub")
    if not _is_ascii(subject) or not 0 < len(subject) <= SUBJECT_CHARS:
        raise refused("The ID token names no subject.")
    name = next(
        (
            text
            for key in ("preferred_username", "email")
            if isinstance(text := claims.get(key), str)
        ),
        "",
    )
    return Identity(expected.issuer, subject, name, _groups(claims.get(groups_claim)))


def role_of(groups: Iterable[str], roles: Mapping[str, Role]) -> Role | None:
    """The role with the most permissions of those that the groups give. None without one."""
    given = [roles[group] for group in groups if group in roles]
    return max(given, key=lambda role: len(PERMISSIONS[role]), default=None)


def no_role(identity: Identity, claim: str) -> OperatorError:
    shown = ", ".join(sorted(identity.groups)[:5]) or f"none: the ID token has no claim {claim!r}"
    return OperatorError(
        "oidc_no_role", f"None of your groups at the provider has a role here ({shown[:300]})."
    )


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    given = claims.get("aud")
    audience = [given] if isinstance(given, str) else given
    if not isinstance(audience, list) or client_id not in audience:
        raise refused("The ID token is for another client.")
    party = claims.get("azp")
    if (len(audience) > 1 or party is not None) and party != client_id:
        raise refused("The ID token was issued to another client.")


def _is_ascii(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isascii()


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(f"The claim {name} of the ID token is not a time.")
    number = float(value) if abs(value) < 1 << 53 else math.nan
    if math.isnan(number):
        raise refused(f"The claim {name} of the ID token is not a time.")
    return number


def _groups(value: object) -> frozenset[str]:
    """The groups of a claim, which is a text or a list of texts. Anything else: none."""
    if isinstance(value, str):
        return frozenset({value})
    if not isinstance(value, list) or len(value) > GROUPS:
        return frozenset()
    return frozenset(one for one in value if isinstance(one, str))
