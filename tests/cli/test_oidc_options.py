"""``edgefleet serve`` with a provider for logins, and ``edgefleet whoami``."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgefleet.cli.group import root
from edgefleet.protocol.people import Permission, Role, WhoAmI
from support.canned_hub import CannedHub
from support.command_line import CommandLine

ISSUER = ("--oidc-issuer", "https://login.example.org")
CLIENT = ("--oidc-client-id", "edgefleet")
BACK = ("--oidc-redirect-uri", "https://hub.example.org/login/oidc/callback")
ROLE = ("--oidc-role", "edge-admins=admin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ISSUER, *CLIENT, *ROLE), "needs --oidc-redirect-uri"),
        ((*ISSUER, *BACK, *ROLE), "needs --oidc-client-id"),
        ((*ISSUER, *CLIENT, *BACK), "No group has a role"),
        ((*CLIENT, *ROLE), "--oidc-client-id needs --oidc-issuer"),
        (("--oidc-issuer", "http://login.example.org", *CLIENT, *BACK, *ROLE), "https"),
        ((*ISSUER, *CLIENT, *BACK, "--oidc-role", "edge-admins=root"), "is not GROUP=ROLE"),
        (
            (*ISSUER, *CLIENT, *BACK, *ROLE, "--oidc-client-secret-file", "/nosuch/secret"),
            "Cannot read the client secret in /nosuch/secret",
        ),
    ],
)
def test_a_wrong_option_is_named_and_no_hub_starts(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    data = tmp_path / "data"
    done = CliRunner().invoke(root, ["serve", "--data-dir", str(data), *options])
    assert done.exit_code != 0
    assert message in done.stderr
    assert not data.exists()


def test_the_options_become_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    async def serve(settings: object, **_rest: object) -> None:
        seen.append(settings)

    monkeypatch.setattr("edgefleet.hub.server.serve", serve)
    monkeypatch.setattr("uvloop.run", asyncio.run)
    secret = tmp_path / "secret"
    secret.write_text("of the hub\n")
    config = tmp_path / "edgefleet.toml"
    config.write_text('[serve]\noidc_role = ["edge-viewers=viewer", "cn=a,dc=b=admin"]\n')
    options = ["--config", str(config), "--oidc-client-secret-file", str(secret)]
    options += ["--oidc-scopes", "openid groups", "--oidc-groups-claim", "roles"]
    done = CliRunner().invoke(root, ["serve", *options, *ISSUER, *CLIENT, *BACK])
    assert done.exit_code == 0, done.output
    oidc = seen[0].oidc
    assert oidc.roles == {"edge-viewers": Role.VIEWER, "cn=a,dc=b": Role.ADMIN}
    assert (oidc.client_secret, oidc.groups_claim) == ("of the hub", "roles")
    assert (oidc.issuer, oidc.scopes) == (ISSUER[1], ("openid", "groups"))


def test_whoami_names_the_principal(fleet: CommandLine, canned: CannedHub) -> None:
    shown = WhoAmI(
        name="ada",
        role=Role.VIEWER,
        permissions=(Permission.ACCOUNT, Permission.VIEW),
        way="token 3f9a0c11d2",
        address="10.0.0.7",
    )
    canned.put("GET", "/api/v1/whoami", shown)
    found = fleet("whoami")
    assert found.exit == 0, found.err
    for text in ("ada", "viewer", "account, view", "token 3f9a0c11d2", "10.0.0.7"):
        assert text in found.out
