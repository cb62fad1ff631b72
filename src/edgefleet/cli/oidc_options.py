"""The options of ``edgefleet serve`` for logins with an OpenID Connect provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgefleet.cli.user import ROLES
from edgefleet.cli.values import WrongValue

if TYPE_CHECKING:
    from edgefleet.hub.oidc.settings import OidcSettings

F = TypeVar("F", bound=Callable[..., Any])


class GroupRole(click.ParamType[tuple[str, str]]):
    """``GROUP=ROLE``. A group may have = in its name."""

    name = "group role"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        group, _, role = str(value).rpartition("=")
        if not group or role not in ROLES.choices:
            example = f"edge-admins=admin; the roles are {', '.join(ROLES.choices)}"
            raise WrongValue(f"{value!r} is not GROUP=ROLE.", example, param, ctx)
        return group, role


_OPTIONS: Final = (
    click.option(
        "--oidc-issuer",
        metavar="URL",
        help="OpenID Connect provider with which people log in to the page (docs/oidc.md).",
    ),
    click.option("--oidc-client-id", metavar="ID", help="The hub's client id at the provider."),
    click.option(
        "--oidc-client-secret-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="File with the client secret. Without it the hub is a public client.",
    ),
    click.option(
        "--oidc-redirect-uri",
        metavar="URL",
        help="The page's address for browsers, with the path /login/oidc/callback.",
    ),
    click.option(
        "--oidc-role",
        type=GroupRole(),
        multiple=True,
        metavar="GROUP=ROLE",
        help="Role of the members of a group; may be repeated. Others cannot log in.",
    ),
    click.option(
        "--oidc-groups-claim",
        default="groups",
        metavar="CLAIM",
        help="Claim of the ID token with the groups of a person.",
    ),
    click.option(
        "--oidc-scopes",
        default="openid profile",
        metavar="SCOPES",
        help="Scopes to ask for, separated by spaces.",
    ),
)


def oidc_options(command: F) -> F:
    """Add the options. Their values go to ``oidc_settings``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def oidc_settings(
    *,
    oidc_issuer: str | None,
    oidc_client_id: str | None,
    oidc_client_secret_file: Path | None,
    oidc_redirect_uri: str | None,
    oidc_role: tuple[tuple[str, str], ...],
    oidc_groups_claim: str,
    oidc_scopes: str,
) -> OidcSettings | None:
    """None without an issuer. Raises OperatorError ``setting_invalid`` that names the setting."""
    from edgefleet.base.errors import OperatorError
    from edgefleet.hub.oidc.settings import OidcSettings, read_secret
    from edgefleet.protocol.people import Role

    given = {"oidc_client_id": oidc_client_id, "oidc_redirect_uri": oidc_redirect_uri}
    if oidc_issuer is None:
        others = given | {
            "oidc_role": oidc_role,
            "oidc_client_secret_file": oidc_client_secret_file,
        }
        for name, value in others.items():
            if value:
                raise OperatorError(
                    "setting_invalid",
                    f"--{name.replace('_', '-')} needs --oidc-issuer.",
                    field="oidc_issuer",
                )
        return None
    for name, value in given.items():
        if not value:
            raise OperatorError(
                "setting_invalid", f"--oidc-issuer needs --{name.replace('_', '-')}.", field=name
            )
    return OidcSettings(
        issuer=oidc_issuer,
        client_id=oidc_client_id or "",
        redirect_uri=oidc_redirect_uri or "",
        roles={group: Role(role) for group, role in oidc_role},
        client_secret=""
        if oidc_client_secret_file is None
        else read_secret(oidc_client_secret_file),
        groups_claim=oidc_groups_claim,
        scopes=tuple(oidc_scopes.split()),
    )
