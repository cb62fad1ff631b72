"""The settings of logins with an OpenID Connect provider."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgefleet.base.errors import OperatorError
from edgefleet.hub.oidc.limits import GROUP_CHARS, ROLES, SECRET_CHARS
from edgefleet.protocol.people import Role

CALLBACK: Final = "/login/oidc/callback"
SCOPES: Final = ("openid", "profile")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, scope-token


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """``roles``: the role of the members of each group. Members of none cannot log in.

    ``redirect_uri`` is the address of the hub's page as browsers see it, with the path
    ``/login/oidc/callback``: the provider sends browsers back there. Without ``client_secret`` the
    hub is a public client.
    """

    issuer: str
    client_id: str
    redirect_uri: str
    roles: Mapping[str, Role]
    client_secret: str = field(default="", repr=False)
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = SCOPES

    def __post_init__(self) -> None:
        """Raises OperatorError ``setting_invalid`` that names the setting."""
        check_url(self.issuer, field="oidc_issuer")
        check_url(self.redirect_uri, field="oidc_redirect_uri")
        if urlsplit(self.redirect_uri).path != CALLBACK:
            raise _invalid(
                "oidc_redirect_uri",
                f"{self.redirect_uri!r} does not end with {CALLBACK}.",
                f"Give the address of the hub's page, such as https://hub.example.org{CALLBACK}.",
            )
        if not self.client_id:
            raise _invalid("oidc_client_id", "The client id is empty.")
        if not self.groups_claim:
            raise _invalid("oidc_groups_claim", "The name of the claim is empty.")
        if not self.roles:
            raise _invalid(
                "oidc_role",
                "No group has a role, so nobody could log in.",
                "Give at least one, such as --oidc-role edge-admins=admin.",
            )
        if len(self.roles) > ROLES or any(len(name) > GROUP_CHARS for name in self.roles):
            raise _invalid(
                "oidc_role", f"At most {ROLES} groups, of at most {GROUP_CHARS} characters each."
            )
        if "openid" not in self.scopes or not all(map(_SCOPE.fullmatch, self.scopes)):
            raise _invalid(
                "oidc_scopes",
                f"{' '.join(self.scopes)!r} is not a list of scopes with openid.",
                "Give scopes separated by spaces, such as 'openid profile groups'.",
            )

    @property
    def is_https(self) -> bool:
        """Whether browsers use the page over HTTPS: then cookies are for HTTPS alone."""
        return self.redirect_uri.startswith("https://")


def read_secret(path: Path) -> str:
    """The client secret in a file: one line. Raises OperatorError ``setting_invalid``."""
    name = "oidc_client_secret_file"
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_CHARS + 2).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(name, f"Cannot read the client secret in {path}.") from error
    if not text or len(text) > SECRET_CHARS or not text.isprintable():
        raise _invalid(
            name,
            f"{path} is not a client secret: one line of at most {SECRET_CHARS} characters.",
        )
    return text


def check_url(url: str, *, field: str) -> None:
    """Raise OperatorError ``setting_invalid`` if ``url`` is not an https address.

    Plain http is accepted for this machine alone.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _invalid(field, f"{url!r} is not an address.") from error
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    if not (host and plain and url.isascii() and url.isprintable() and " " not in url):
        raise _invalid(field, f"{url!r} is not an address such as https://login.example.org.")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return
    raise _invalid(
        field,
        f"{url!r} is not an https address.",
        "Use https: http is accepted for 127.0.0.1, ::1 and localhost alone.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _invalid(field: str, message: str, hint: str | None = None) -> OperatorError:
    return OperatorError("setting_invalid", message, field=field, hint=hint)
