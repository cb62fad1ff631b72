"""Logins with an OpenID Connect provider: the flow, its checks, and attacks on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from edgefleet.base.errors import OperatorError
from edgefleet.hub.api import create_app
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import LOGIN_PAUSE_S, LOGINS_OF_ADDRESS, SESSION_S
from edgefleet.hub.oidc.limits import CLOCK_SKEW_S, FAILURE_KEPT_S, KEYS_AGAIN_S, LOGIN_S
from edgefleet.hub.oidc.settings import CALLBACK, OidcSettings, read_secret
from edgefleet.protocol.people import AddUser, ChangeUser, CreateToken, Role
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.web.routes import routes_for
from support.asgi import Reply, ask_within
from support.fake_provider import (
    CLIENT,
    SECRET,
    Claims,
    FakeProvider,
    fake_provider,
    signed,
    signed_with_secret,
    unsigned,
)
from support.hub_inside import ManualClock, hub_inside

ROLES = {"edge-admins": Role.ADMIN, "edge-viewers": Role.VIEWER}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def provider(clock: ManualClock) -> Iterator[FakeProvider]:
    with fake_provider(clock.now) as running:
        yield running


def settings(provider: FakeProvider, **changes: Any) -> OidcSettings:
    made = OidcSettings(
        issuer=provider.issuer,
        client_id=CLIENT,
        redirect_uri=f"https://hub.example.org{CALLBACK}",
        roles=ROLES,
        client_secret=SECRET,
    )
    return replace(made, **changes)


@dataclass
class Browser:
    """Keeps cookies, as a browser does, and their attributes."""

    hub: Hub
    app: Any
    provider: FakeProvider

    def __post_init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, str] = {}

    async def get(self, target: str) -> Reply:
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = await ask_within(self.app, "GET", target, headers={"cookie": jar})
        if set_ := reply.headers.get("set-cookie"):
            pair, _, attributes = set_.partition(";")
            name, _, value = pair.partition("=")
            self.attributes[name] = attributes
            if "Max-Age=0" not in attributes:
                self.cookies[name] = value.strip('"')
        return reply

    async def begin(self, next_: str = "/devices") -> str:
        """Press the button. Returns the address at the provider."""
        reply = await self.get(f"/login/oidc?next={next_}")
        assert reply.status == 303, reply.text
        return reply.headers["location"]

    async def back(self, query: Mapping[str, str]) -> Reply:
        return await self.get(f"{CALLBACK}?{urlencode(query)}")

    async def log_in(self) -> Reply:
        return await self.back(self.provider.authorize(await self.begin()))

    @property
    def session(self) -> str:
        return self.cookies.get(self.hub.logins.cookie, "")

    @property
    def name(self) -> str:
        by = self.hub.logins.principal(self.session, "")
        return "" if by is None else f"{by.name} {by.role}"


@asynccontextmanager
async def browsing(
    data: Path, provider: FakeProvider, clock: ManualClock, **changes: Any
) -> AsyncIterator[Browser]:
    oidc: Any = settings(provider, **changes)
    async with hub_inside(data, clock, oidc=oidc) as hub:
        yield Browser(hub, create_app(hub, routes_for(hub, clock=clock)), provider)


Body = Callable[[Browser], Awaitable[None]]


@pytest.fixture
def browse(tmp_path: Path, provider: FakeProvider, clock: ManualClock) -> Callable[..., None]:
    def run(body: Body, **changes: Any) -> None:
        async def main() -> None:
            async with browsing(tmp_path / "data", provider, clock, **changes) as browser:
                await body(browser)

        asyncio.run(main())

    return run


def refusal(reply: Reply) -> str:
    """The message on the login page."""
    _, _, rest = reply.text.partition('role="alert">')
    return rest.partition("</p>")[0].replace("&#39;", "'")


def test_a_login_opens_a_session_with_the_role_of_the_groups(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        url = await browser.begin("/devices?phase=idle")
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["redirect_uri"] == f"https://hub.example.org{CALLBACK}"
        assert asked["scope"] == "openid profile"
        begun = browser.attributes[f"{browser.hub.logins.cookie}_oidc"]
        assert {"HttpOnly", "SameSite=lax", "Secure", "Path=/login"} <= {
            part.strip() for part in begun.split(";")
        }
        verifier = asked["code_challenge"]
        assert verifier not in browser.cookies[f"{browser.hub.logins.cookie}_oidc"]
        reply = await browser.back(browser.provider.authorize(url))
        assert (reply.status, reply.headers["location"]) == (303, "/devices?phase=idle")
        assert browser.name == "ada admin"
        user = browser.hub.people.users().users[0]
        assert (user.name, user.source, user.has_password) == ("ada", "oidc", False)
        lines = browser.hub.audit(None, 10).entries
        assert [(line.actor, line.action, line.way) for line in lines] == [
            ("ada", "login", "session (provider)"),
            ("ada", "add_user", "session (provider)"),
        ]
        assert f"248289761001 of {browser.provider.issuer}" in lines[1].detail

    browse(body)


def test_the_login_page_has_the_button_and_keeps_the_local_form(
    browse: Callable[..., None],
) -> None:
    async def body(browser: Browser) -> None:
        page = (await browser.get("/devices?phase=idle")).text
        assert 'href="/login/oidc?next=/devices%3Fphase%3Didle"' in page
        assert f"Sign in with {urlsplit(browser.provider.issuer).netloc}" in page
        assert 'name="secret"' in page
        session = await browser.hub.logins.enter("operator", _token(browser.hub), "")
        by = browser.hub.logins.principal(session, "")
        assert by is not None
        assert by.is_operator_token

    browse(body)


def _token(hub: Hub) -> str:
    return (hub.settings.data_dir / "operator.token").read_text().strip()


@pytest.mark.parametrize("group", ["none-of-ours", ""])
def test_without_a_mapped_group_nobody_enters(browse: Callable[..., None], group: str) -> None:
    async def body(browser: Browser) -> None:
        browser.provider.groups = (group,) if group else ()
        reply = await browser.log_in()
        assert reply.status == 403
        assert "None of your groups" in refusal(reply)
        assert browser.name == ""
        assert browser.hub.people.users().users == ()

    browse(body)


def test_a_person_is_the_issuer_and_the_subject_never_a_name(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        people, provider = browser.hub.people, browser.provider
        await people.add_user(AddUser(name="ada", role=Role.VIEWER), OPERATOR_TOKEN)
        await browser.log_in()
        first = browser.name
        assert first.startswith("ada-")  # not the local user of that name
        provider.name = "grace"
        await browser.log_in()
        assert browser.name == first
        provider.subject, provider.name = "another", "Ada"
        await browser.log_in()
        assert browser.name.startswith("ada-")
        assert browser.name != first
        for odd in ("operator", "../x", "Ωμέγα", ""):
            provider.subject, provider.name = f"subject {odd!r}".encode().hex(), odd
            await browser.log_in()
            assert browser.name.split()[1] == "admin", odd
        assert "operator" not in {user.name for user in people.users().users}

    browse(body)


def test_groups_change_the_role_and_a_disabled_user_stays_out(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        people, provider = browser.hub.people, browser.provider
        await browser.log_in()
        old = browser.session
        provider.groups = ("edge-viewers", "others")
        await browser.log_in()
        assert browser.name == "ada viewer"
        by = browser.hub.logins.principal(old, "")
        assert by is not None
        assert by.role is Role.VIEWER  # also in the session of before
        provider.groups = ("edge-viewers", "edge-admins")
        await browser.log_in()
        assert browser.name == "ada admin"
        with pytest.raises(OperatorError, match="comes from the groups"):
            await people.change_user("ada", ChangeUser(role=Role.VIEWER), OPERATOR_TOKEN)
        provider.groups = ()
        assert (await browser.log_in()).status == 403
        assert browser.name == ""  # its sessions have ended
        provider.groups = ("edge-admins",)
        await browser.log_in()
        await people.change_user("ada", ChangeUser(disabled=True), OPERATOR_TOKEN)
        assert browser.name == ""
        assert (await browser.log_in()).status == 401
        assert browser.name == ""

    browse(body)


def test_users_and_sessions_outlive_a_restart_and_sessions_end(
    tmp_path: Path, provider: FakeProvider, clock: ManualClock
) -> None:
    async def main() -> None:
        async with browsing(tmp_path / "data", provider, clock) as browser:
            await browser.log_in()
            session = browser.session
            made = await browser.hub.people.create_token(CreateToken(user="ada"), OPERATOR_TOKEN)
        async with browsing(tmp_path / "data", provider, clock) as browser:
            assert browser.hub.logins.principal(session, "") is not None
            assert browser.hub.people.by_token(made.token, "").name == "ada"
            await browser.log_in()
            assert browser.name == "ada admin"  # the same user
            clock.time += SESSION_S + 1
            assert browser.hub.logins.principal(session, "") is None
            assert browser.name == ""

    asyncio.run(main())


# Attacks. Each is a change of one thing in a login that works.

OTHER = RSAKey.generate_key(2048, {"kid": "k1"})


def with_claims(**changes: Any) -> Callable[[FakeProvider], None]:
    def change(provider: FakeProvider) -> None:
        def claims(given: Claims) -> Claims:
            made = given | {
                name: value(given) if callable(value) else value for name, value in changes.items()
            }
            return {name: value for name, value in made.items() if value is not ...}

        provider.claims = claims

    return change


def with_token(make: Callable[[FakeProvider, Claims], str]) -> Callable[[FakeProvider], None]:
    def change(provider: FakeProvider) -> None:
        provider.token = lambda claims: make(provider, claims)

    return change


def hs256(provider: FakeProvider, claims: Claims) -> str:
    """HMAC with the public key's PEM as the secret."""
    return signed_with_secret(claims, provider.key.as_pem(private=False))


ATTACKS: dict[str, tuple[Callable[[FakeProvider], None], str]] = {
    "wrong nonce": (with_claims(nonce="another"), "made for another login"),
    "no nonce": (with_claims(nonce=...), "made for another login"),
    "wrong aud": (with_claims(aud="another"), "for another client"),
    "no aud": (with_claims(aud=...), "for another client"),
    "aud of two without azp": (with_claims(aud=[CLIENT, "another"]), "issued to another client"),
    "aud of two, azp of the other": (
        with_claims(aud=[CLIENT, "another"], azp="another"), "issued to another client"
    ),
    "azp of another": (with_claims(azp="another"), "issued to another client"),
    "wrong iss": (with_claims(iss="https://evil.example"), "of another issuer"),
    "iss with a slash": (with_claims(iss=lambda old: old["iss"] + "/"), "of another issuer"),
    "expired": (with_claims(exp=lambda old: old["iat"] - CLOCK_SKEW_S), "has expired"),
    "no exp": (with_claims(exp=...), "exp of the ID token is not a time"),
    "exp as a text": (with_claims(exp="9999999999"), "exp of the ID token is not a time"),
    "exp true": (with_claims(exp=True), "exp of the ID token is not a time"),
    "no iat": (with_claims(iat=...), "iat of the ID token is not a time"),
    "iat of before": (with_claims(iat=lambda old: old["iat"] - 3600), "during this login"),
    "iat of later": (with_claims(iat=lambda old: old["iat"] + 3600), "during this login"),
    "nbf of later": (with_claims(nbf=lambda old: old["iat"] + 3600), "not valid yet"),
    "no sub": (with_claims(sub=""), "names no subject"),
    "sub as a number": (with_claims(sub=7), "names no subject"),
    "alg none": (with_token(lambda _, claims: unsigned(claims)), "the algorithm 'none'"),
    "HS256 with the public key": (with_token(hs256), "the algorithm 'HS256'"),
    "key of another issuer": (
        with_token(lambda _, claims: signed(claims, OTHER, "RS256", kid="k1")), "signature"
    ),
    "key in the header": (
        with_token(
            lambda _, claims: signed(
                claims, OTHER, "RS256", kid="k1", jwk=OTHER.as_dict(private=False)
            )
        ),
        "signature",
    ),
    "unknown kid": (
        with_token(lambda one, claims: signed(claims, one.key, "RS256", kid="k2")), "a key that"
    ),
    "algorithm of another type": (
        with_token(
            lambda _, claims: signed(claims, ECKey.generate_key("P-256"), "ES256", kid="k1")
        ),
        "a key that",
    ),
    "access token as ID token": (
        with_token(lambda one, claims: signed(claims, one.key, "RS256", kid="k1", typ="at+jwt")),
        "'at+jwt', and no ID token",
    ),
    "no token": (with_token(lambda *_: ""), "three parts"),
    "cut token": (
        with_token(lambda one, claims: signed(claims, one.key, "RS256", kid="k1")[:-40]),
        "signature",
    ),
    "huge token": (with_token(lambda *_: "a." * 20_000), "has more than"),
    "a list as claims": (
        with_token(lambda one, _: signed([1], one.key, "RS256", kid="k1")),  # type: ignore[arg-type]
        "no JSON object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_is_not_of_this_login_is_refused(
    browse: Callable[..., None], attack: str
) -> None:
    change, message = ATTACKS[attack]

    async def body(browser: Browser) -> None:
        change(browser.provider)
        reply = await browser.log_in()
        assert message in refusal(reply)
        assert (reply.status, browser.name) == (401, "")
        browser.provider.claims, browser.provider.token = lambda claims: claims, None
        assert refusal(await browser.log_in()) == ""
        assert browser.name == "ada admin"  # the login that was changed does work

    browse(body)


def test_clocks_may_differ_by_a_minute(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        for shift in (-CLOCK_SKEW_S + 1, CLOCK_SKEW_S - 1):
            with_claims(
                iat=lambda old, shift=shift: old["iat"] + shift,
                exp=lambda old, shift=shift: old["iat"] + shift + 1,
            )(browser.provider)
            await browser.log_in()
            assert browser.name == "ada admin"

    browse(body)


def test_other_algorithms_of_the_list_are_accepted(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        provider = browser.provider
        keys: dict[str, Any] = {
            "ES256": ECKey.generate_key("P-256", {"kid": "e"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "o"}),
            "PS256": RSAKey.generate_key(2048, {"kid": "p"}),
        }
        shown = [key.as_dict(private=False) for key in keys.values()]
        provider.jwks = json.dumps({"keys": [*shown, {"kty": "nosuch"}, {"kty": "RSA"}]}).encode()
        for number, (algorithm, key) in enumerate(keys.items()):
            provider.subject = str(number)
            provider.token = lambda claims, key=key, algorithm=algorithm: signed(  # type: ignore[misc]
                claims, key, algorithm, kid=key.kid
            )
            await browser.log_in()
            assert browser.name.endswith("admin"), algorithm

    browse(body)


def test_a_state_works_once_in_its_browser_and_for_ten_minutes(
    browse: Callable[..., None], clock: ManualClock
) -> None:
    async def body(browser: Browser) -> None:
        provider = browser.provider
        answer = provider.authorize(await browser.begin())
        cookie = dict(browser.cookies)
        assert (await browser.back(answer)).status == 303
        browser.cookies = cookie  # replay, with the cookie of the login
        provider.codes[answer["code"]] = dict(provider.codes.get(answer["code"], {}))
        asked = len(provider.asked)
        assert "not begun in this browser" in refusal(await browser.back(answer))
        assert len(provider.asked) == asked  # refused without a request to the provider

        answer = provider.authorize(await browser.begin())
        browser.cookies.clear()  # login CSRF: the answer of an attacker's login, elsewhere
        assert "not begun in this browser" in refusal(await browser.back(answer))
        await browser.begin()  # also where the victim has begun a login of its own
        assert "not begun in this browser" in refusal(await browser.back(answer))
        name = f"{browser.hub.logins.cookie}_oidc"
        body, _, mac = browser.cookies[name].partition(".")
        browser.cookies[name] = f"{body[:-4]}AAAA.{mac}"
        assert "not begun in this browser" in refusal(await browser.back(answer))
        assert browser.name == ""

        answer = provider.authorize(await browser.begin())
        clock.time += LOGIN_S
        assert "took too long" in refusal(await browser.back(answer))

    browse(body)


def test_a_code_works_once(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        first = browser.provider.authorize(await browser.begin())
        await browser.back(first)
        browser.cookies.clear()
        second = browser.provider.authorize(await browser.begin())
        stolen = second | {"code": first["code"]}
        assert "refused the code (invalid_grant)" in refusal(await browser.back(stolen))

    browse(body)


def test_a_code_of_another_login_does_not_fit_the_verifier(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        attackers = browser.provider.authorize(await browser.begin())
        browser.cookies.clear()
        own = browser.provider.authorize(await browser.begin())
        injected = own | {"code": attackers["code"]}
        assert "refused the code (invalid_grant)" in refusal(await browser.back(injected))

    browse(body)


def test_an_answer_of_another_provider_is_refused(browse: Callable[..., None]) -> None:
    async def body(browser: Browser) -> None:
        for iss in ("https://evil.example", None):
            answer = browser.provider.authorize(await browser.begin())
            del answer["iss"]
            mixed = answer | ({"iss": iss} if iss else {})
            assert "of another provider" in refusal(await browser.back(mixed))
        answer = browser.provider.authorize(await browser.begin())
        twice = f"{CALLBACK}?{urlencode(answer)}&state={answer['state']}"
        assert (await browser.get(twice)).status == 401
        answer = browser.provider.authorize(await browser.begin())
        failed = {"error": "access_denied", "state": answer["state"], "iss": answer["iss"]}
        assert "(access_denied)" in refusal(await browser.back(failed))

    browse(body)


@pytest.mark.parametrize(
    "away", ["https://evil.example/", "//evil.example", "/%5Cevil.example", "javascript:alert(1)"]
)
def test_no_login_leads_away_from_the_hub(browse: Callable[..., None], away: str) -> None:
    async def body(browser: Browser) -> None:
        reply = await browser.back(browser.provider.authorize(await browser.begin(away)))
        assert reply.headers["location"] == "/"

    browse(body)


# The provider misbehaves.


def test_a_huge_key_set_is_refused(browse: Callable[..., None], clock: ManualClock) -> None:
    async def body(browser: Browser) -> None:
        provider = browser.provider
        provider.jwks = b'{"keys": [' + b"{}," * 200_000 + b"{}]}"
        reply = await browser.log_in()
        assert (reply.status, browser.name) == (503, "")
        assert "has more than 262144 bytes" in refusal(reply)
        provider.jwks = json.dumps({"keys": [{"kty": "RSA"}] * 101}).encode()
        clock.time += FAILURE_KEPT_S
        assert "101 keys" in refusal(await browser.log_in())

    browse(body)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
def test_a_provider_that_hangs_costs_one_login(
    browse: Callable[..., None], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet.hub.oidc.fetching.FETCH_S", 0.1)

    async def body(browser: Browser) -> None:
        browser.provider.hang = path
        if path.startswith("/."):
            replies = [await browser.get("/login/oidc") for _ in range(5)]
            assert browser.provider.asked.count(path) == 1  # the failure is kept for a while
            reply = replies[-1]
        else:
            reply = await browser.log_in()
        assert reply.status == 503
        assert "did not answer within" in refusal(reply)
        assert "edgefleet hub login" in refusal(reply)
        session = await browser.hub.logins.enter("operator", _token(browser.hub), "")
        assert session

    browse(body)


def test_an_unknown_key_is_looked_up_once_a_minute(
    browse: Callable[..., None], clock: ManualClock
) -> None:
    async def body(browser: Browser) -> None:
        provider = browser.provider
        await browser.log_in()
        provider.key = RSAKey.generate_key(2048, {"kid": "k2"})
        with_token(lambda one, claims: signed(claims, one.key, "RS256", kid="k2"))(provider)
        for _ in range(3):
            assert "a key that" in refusal(await browser.log_in())
        assert provider.asked.count("/jwks") == 1
        clock.time += KEYS_AGAIN_S
        assert (await browser.log_in()).status == 303
        assert provider.asked.count("/jwks") == 2

    browse(body)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"issuer": "https://evil.example"}, "names the issuer 'https://evil.example'"),
        ({"token_endpoint": "http://login.example/token"}, "is not an https address"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri cannot be used"),
        ({"authorization_endpoint": 7}, "is not a discovery document"),
    ],
)
def test_a_wrong_discovery_document_is_refused(
    browse: Callable[..., None], more: dict[str, Any], message: str
) -> None:
    async def body(browser: Browser) -> None:
        browser.provider.more = more
        reply = await browser.get("/login/oidc")
        assert reply.status == 503
        assert message in refusal(reply)

    browse(body)


def test_failed_logins_are_limited_by_address_and_an_outage_is_not_counted(
    browse: Callable[..., None], clock: ManualClock
) -> None:
    async def body(browser: Browser) -> None:
        provider = browser.provider
        provider.groups = ()
        for _ in range(LOGINS_OF_ADDRESS):
            assert (await browser.log_in()).status == 403
        provider.groups = ("edge-admins",)
        reply = await browser.log_in()
        assert (reply.status, reply.headers["retry-after"]) == (429, "300")
        clock.time += LOGIN_PAUSE_S
        provider.broken = "/token"
        for _ in range(LOGINS_OF_ADDRESS):
            assert (await browser.log_in()).status == 503
        provider.broken = ""
        assert (await browser.log_in()).status == 303

    browse(body)


def test_failed_logins_are_one_line_of_the_audit_log_a_minute(
    browse: Callable[..., None], clock: ManualClock
) -> None:
    async def body(browser: Browser) -> None:
        hub = browser.hub
        await hub.people.add_user(AddUser(name="bob", role=Role.VIEWER), OPERATOR_TOKEN)

        async def lines() -> list[str]:
            await hub.flush()
            await hub.flush()
            return [one.detail for one in hub.audit(None, 1000).entries if one.actor == "hub"]

        async def fail(name: str, count: int) -> None:
            for number in range(count):
                with pytest.raises(OperatorError):
                    await hub.logins.enter(name, "ef_no_token", f"10.0.{number % 7}.1")

        await fail("bob", 12)
        with_claims(nonce="another")(browser.provider)
        await browser.log_in()
        assert await lines() == [
            (
                "13 failed: password 12, provider 1; users: bob 12, others 1; "
                "from: 10.0.0.1 2, 10.0.1.1 2, 10.0.2.1 2, others 7"
            )
        ]
        await fail("correct horse battery", 50)  # a password in the wrong field
        assert len(await lines()) == 1
        clock.time += 60
        assert len(await lines()) == 2
        assert "horse" not in str(await lines())
        assert (await lines())[0].startswith("50 failed: password 50; users: others 50; from:")

    browse(body)


# Settings.


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"issuer": "http://login.example.org"}, "oidc_issuer"),
        ({"issuer": "https://user:pass@login.example.org"}, "oidc_issuer"),
        ({"issuer": "https://login.example.org?x=1"}, "oidc_issuer"),
        ({"issuer": "login.example.org"}, "oidc_issuer"),
        ({"issuer": "https://login.example.org:port"}, "oidc_issuer"),
        ({"redirect_uri": "http://hub.example.org/login/oidc/callback"}, "oidc_redirect_uri"),
        ({"redirect_uri": "https://hub.example.org/"}, "oidc_redirect_uri"),
        ({"client_id": ""}, "oidc_client_id"),
        ({"roles": {}}, "oidc_role"),
        ({"groups_claim": ""}, "oidc_groups_claim"),
        ({"scopes": ("profile",)}, "oidc_scopes"),
        ({"scopes": ("openid", 'a"b')}, "oidc_scopes"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], field: str) -> None:
    right = OidcSettings(
        "https://login.example.org", CLIENT, f"http://127.0.0.1:8400{CALLBACK}", ROLES, SECRET
    )
    assert SECRET not in repr(right)
    with pytest.raises(OperatorError) as caught:
        replace(right, **changes)
    assert (caught.value.code, caught.value.field) == ("setting_invalid", field)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"x" * 2000, None])
def test_a_wrong_secret_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorError) as caught:
        read_secret(path)
    assert caught.value.field == "oidc_client_secret_file"
    path.write_text("right one\n")
    assert read_secret(path) == "right one"
