"""Users, tokens, sessions and approvals by principals."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import (
    LOGIN_LINK_S,
    LOGIN_PAUSE_S,
    LOGINS_OF_ADDRESS,
    LOGINS_OF_USER,
    SESSION_S,
)
from edgefleet.protocol.people import (
    AddUser,
    ChangePassword,
    ChangeUser,
    CreateToken,
    RevokeToken,
    Role,
)
from edgefleet.protocol.rollout import (
    ApprovalSpec,
    ApproveRequest,
    Freeze,
    RolloutSpec,
)
from edgefleet.security.principals import OPERATOR_TOKEN, Principal
from edgefleet.security.signing import PublisherKey
from support.hub_inside import ManualClock, enrol_inside, hub_inside, publish_inside
from support.tiny_releases import tiny_release

PASSWORD = "correct horse battery"
KEY = PublisherKey.generate()
HERE = "10.0.0.7"


@pytest.fixture(autouse=True)
def fast_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password costs 0.3 s of CPU; test_passwords has the real parameters."""
    monkeypatch.setattr("edgefleet.security.passwords._LOG_N", 4)
    cheap = "scrypt$4$8$3$" + "A" * 22 + "==$" + "A" * 43 + "="
    monkeypatch.setattr("edgefleet.hub.people.NO_PASSWORD", cheap)


def with_hub(
    data: Path, body: Callable[[Hub], Awaitable[Any]], clock: ManualClock | None = None
) -> Any:
    async def main() -> Any:
        async with hub_inside(data, clock) as hub:
            return await body(hub)

    return asyncio.run(main())


async def add(hub: Hub, name: str, role: Role, password: str = PASSWORD) -> None:
    await hub.people.add_user(AddUser(name=name, role=role, password=password), OPERATOR_TOKEN)


async def token_of(hub: Hub, name: str, role: Role | None = None, **more: Any) -> str:
    request = CreateToken(user=name, role=role, **more)
    return (await hub.people.create_token(request, OPERATOR_TOKEN)).token


def operator_token(hub: Hub) -> str:
    return (hub.folder.root / "operator.token").read_text().strip()


def writes(hub: Hub) -> str:
    return next(line for line in hub.metrics().splitlines() if "edgefleet_writes_total " in line)


def refused(call: Callable[[], object]) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        call()
    return caught.value


async def refusal(call: Awaitable[object]) -> OperatorError:
    with pytest.raises(OperatorError) as caught:
        await call
    return caught.value


# Tokens.


def test_a_token_is_its_user_with_at_most_its_own_role(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.APPROVER)
        text = await token_of(hub, "ada", Role.VIEWER)
        assert text.startswith("ef_")
        by = hub.people.by_header(f"Bearer {text}", HERE)
        assert (by.name, by.role, by.address) == ("ada", Role.VIEWER, HERE)
        assert by.way == f"token {text.split('_')[1]}"
        every = await token_of(hub, "ada")
        assert hub.people.by_token(every, HERE).role is Role.APPROVER
        await hub.people.change_user("ada", ChangeUser(role=Role.OPERATOR), OPERATOR_TOKEN)
        assert hub.people.by_token(every, HERE).role is Role.OPERATOR
        error = await refusal(token_of(hub, "ada", Role.ADMIN))
        assert (error.code, error.field) == ("bad_request", "role")

    with_hub(tmp_path / "data", body)


def test_a_revoked_an_expired_and_a_disabled_users_token_are_refused_at_once(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    ended: list[str] = []

    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.OPERATOR)
        short, revoked, other = [
            await token_of(hub, "ada", valid_s=valid_s) for valid_s in (60.0, None, None)
        ]
        for text in (short, revoked, other):
            hub.people.by_token(text, HERE)
        clock.time += 60
        assert "has expired" in refused(lambda: hub.people.by_token(short, HERE)).message
        id_ = revoked.split("_")[1]
        ended.append(id_)
        await hub.people.revoke_token(id_, RevokeToken(note="lost"), OPERATOR_TOKEN)
        assert "was revoked" in refused(lambda: hub.people.by_token(revoked, HERE)).message
        await hub.people.change_user("ada", ChangeUser(disabled=True), OPERATOR_TOKEN)
        error = refused(lambda: hub.people.by_token(other, HERE))
        assert (error.code, error.status) == ("unauthenticated", 401)

    async def after(hub: Hub) -> None:
        """A restart remembers both."""
        [one] = hub.people.users().users
        assert one.disabled
        revoked = [
            token.id for token in hub.people.tokens(OPERATOR_TOKEN).tokens if token.revoked_at
        ]
        assert revoked == ended

    with_hub(tmp_path / "data", body, clock)
    with_hub(tmp_path / "data", after, clock)


@pytest.mark.parametrize(
    "wrong",
    ["", "ef_", "ef__", "ef_x_y", "efo_guess", "é", "ef_{id}_", "ef_{id}_{secret}x", "{secret}"],
)
def test_a_wrong_token_is_refused(tmp_path: Path, wrong: str) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.ADMIN)
        _, id_, secret = (await token_of(hub, "ada")).split("_", 2)
        text = wrong.format(id=id_, secret=secret)
        assert refused(lambda: hub.people.by_token(text, HERE)).code == "unauthenticated"

    with_hub(tmp_path / "data", body)


def test_no_secret_is_in_the_database_or_in_the_audit_log(tmp_path: Path) -> None:
    async def body(hub: Hub) -> tuple[str, str]:
        await add(hub, "ada", Role.OPERATOR)
        text = await token_of(hub, "ada")
        session = await hub.logins.enter("ada", PASSWORD, HERE)
        return text, session

    text, session = with_hub(tmp_path / "data", body)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("hub.sqlite*"))
    secret = text.split("_", 2)[2]
    for one in (secret, session, PASSWORD):
        assert one.encode() not in stored
    assert b"scrypt$" in stored


def test_the_last_use_of_a_token_is_stored_by_the_flush_and_not_by_the_request(
    tmp_path: Path,
) -> None:
    clock = ManualClock()

    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.OPERATOR)
        text = await token_of(hub, "ada")
        await hub.flush()
        before = writes(hub)
        for _ in range(5):
            hub.people.by_token(text, HERE)
            clock.time += 10
        assert writes(hub) == before
        [token] = hub.people.tokens(OPERATOR_TOKEN).tokens
        assert token.last_used == clock.time - 50

    async def after(hub: Hub) -> None:
        [token] = hub.people.tokens(OPERATOR_TOKEN).tokens
        assert token.last_used == clock.time - 50

    with_hub(tmp_path / "data", body, clock)
    with_hub(tmp_path / "data", after, clock)


def test_a_user_sees_and_revokes_only_the_own_tokens(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.OPERATOR)
        await add(hub, "bob", Role.OPERATOR)
        ada = hub.people.by_token(await token_of(hub, "ada"), HERE)
        await token_of(hub, "bob")
        [bobs] = [t for t in hub.people.tokens(OPERATOR_TOKEN).tokens if t.user == "bob"]
        assert [token.user for token in hub.people.tokens(ada).tokens] == ["ada"]
        error = await refusal(hub.people.revoke_token(bobs.id, RevokeToken(), ada))
        assert error.code == "not_found"
        assert (await hub.people.revoke_token(ada.token, RevokeToken(), ada)).revoked_at
        error = await refusal(
            hub.people.set_password("bob", ChangePassword(password=PASSWORD), ada)
        )
        assert error.code == "forbidden"

    with_hub(tmp_path / "data", body)


# Users and passwords.


@pytest.mark.parametrize("name", ["", "Ada", "operator", "gate", "hub", "a/b", "a b", "device/x"])
def test_a_name_that_could_be_taken_for_another_actor_is_refused(tmp_path: Path, name: str) -> None:
    async def body(hub: Hub) -> None:
        assert (await refusal(add(hub, name, Role.VIEWER))).code == "name_invalid"

    with_hub(tmp_path / "data", body)


def test_a_short_password_and_a_taken_name_are_refused(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        assert (await refusal(add(hub, "ada", Role.VIEWER, "short"))).code == "password_weak"
        await add(hub, "ada", Role.VIEWER)
        assert (await refusal(add(hub, "ada", Role.ADMIN))).code == "user_exists"
        assert hub.people.role_of("ada") is Role.VIEWER

    with_hub(tmp_path / "data", body)


def test_a_new_password_ends_the_sessions_and_needs_the_current_one(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        session = await hub.logins.enter("ada", PASSWORD, HERE)
        ada = hub.logins.principal(session, HERE)
        assert ada is not None
        change = ChangePassword(password="another long password", current="wrong")
        error = await refusal(hub.people.set_password("ada", change, ada))
        assert (error.code, error.field) == ("bad_request", "current")
        assert hub.logins.principal(session, HERE)
        right = ChangePassword(password="another long password", current=PASSWORD)
        await hub.people.set_password("ada", right, ada)
        assert hub.logins.principal(session, HERE) is None
        assert (await refusal(hub.logins.enter("ada", PASSWORD, HERE))).code == "unauthenticated"
        assert await hub.logins.enter("ada", "another long password", HERE)

    with_hub(tmp_path / "data", body)


def test_a_password_that_is_set_while_the_user_is_disabled_enables_nobody(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        change = ChangePassword(password="another long password")
        await asyncio.gather(
            hub.people.set_password("ada", change, OPERATOR_TOKEN),
            hub.people.change_user("ada", ChangeUser(disabled=True), OPERATOR_TOKEN),
        )
        assert hub.people.users().users[0].disabled
        error = await refusal(hub.logins.enter("ada", "another long password", HERE))
        assert error.code == "unauthenticated"

    with_hub(tmp_path / "data", body)


# Logins.


def test_every_wrong_login_gets_the_same_answer(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        await add(hub, "ci", Role.VIEWER, "")
        wrong = [("ada", "wrong"), ("nobody", PASSWORD), ("ci", ""), ("operator", "efo_1")]
        wrong += [("ada", "ef_1_2"), ("", "")]
        told = [await refusal(hub.logins.enter(*one, HERE)) for one in wrong]
        assert {(one.code, one.message, one.hint) for one in told} == {
            (told[0].code, told[0].message, told[0].hint)
        }

    with_hub(tmp_path / "data", body)


def test_an_unknown_name_costs_as_many_hashes_as_a_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def counted(_password: str, stored: str) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr("edgefleet.hub.people.password_fits", counted)

    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        await refusal(hub.logins.enter("ada", "wrong", HERE))
        await refusal(hub.logins.enter("nobody", "wrong", HERE))

    with_hub(tmp_path / "data", body)
    assert len(compared) == 2
    assert {stored.rsplit("$", 2)[0] for stored in compared} == {"scrypt$4$8$3"}


def test_logins_that_fail_are_limited_by_user_and_by_address(tmp_path: Path) -> None:
    clock = ManualClock()

    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        for number in range(LOGINS_OF_USER):
            error = await refusal(hub.logins.enter("ada", "wrong", f"10.0.0.{number}"))
            assert error.code == "unauthenticated"
        error = await refusal(hub.logins.enter("ada", PASSWORD, "10.1.0.1"))
        assert (error.code, error.status) == ("too_many_logins", 429)
        assert error.retry_after_s == LOGIN_PAUSE_S
        for number in range(LOGINS_OF_ADDRESS):
            await refusal(hub.logins.enter(f"u{number}", "wrong", "10.2.0.1"))
        error = await refusal(hub.logins.enter("eve", "wrong", "10.2.0.1"))
        assert error.code == "too_many_logins"
        clock.time += LOGIN_PAUSE_S
        assert await hub.logins.enter("ada", PASSWORD, "10.2.0.1")

    with_hub(tmp_path / "data", body, clock)


def test_many_right_logins_are_never_too_many(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.VIEWER)
        many = LOGINS_OF_ADDRESS + 2
        sessions = {await hub.logins.enter("ada", PASSWORD, HERE) for _ in range(many)}
        assert len(sessions) == many

    with_hub(tmp_path / "data", body)


@pytest.mark.parametrize("restart", [False, True])
def test_a_session_ends_by_time_by_logout_and_with_what_opened_it(
    tmp_path: Path, *, restart: bool
) -> None:
    clock = ManualClock()
    data = tmp_path / "data"
    opened: dict[str, str] = {}

    async def begin(hub: Hub) -> None:
        await add(hub, "ada", Role.OPERATOR)
        await add(hub, "bob", Role.OPERATOR)
        await add(hub, "eve", Role.OPERATOR)
        token = await token_of(hub, "bob")
        opened["bob's id"] = token.split("_")[1]
        opened["ada"] = await hub.logins.enter("ada", PASSWORD, HERE)
        opened["left"] = await hub.logins.enter("ada", PASSWORD, HERE)
        opened["bob"] = await hub.logins.enter("", token, HERE)
        opened["eve"] = await hub.logins.enter("eve", PASSWORD, HERE)
        opened["operator"] = await hub.logins.enter("operator", operator_token(hub), HERE)

    async def end(hub: Hub) -> None:
        for name in ("ada", "bob", "eve", "operator"):
            by = hub.logins.principal(opened[name], HERE)
            assert by is not None
            assert by.name == name
        await hub.logins.log_out(opened["left"])
        await hub.people.revoke_token(opened["bob's id"], RevokeToken(), OPERATOR_TOKEN)
        await hub.people.change_user("eve", ChangeUser(disabled=True), OPERATOR_TOKEN)

    async def check(hub: Hub) -> None:
        for name in ("left", "bob", "eve"):
            assert hub.logins.principal(opened[name], HERE) is None, name
        assert hub.logins.principal(opened["ada"], HERE) is not None
        clock.time += SESSION_S
        assert hub.logins.principal(opened["ada"], HERE) is None
        assert hub.logins.principal("", HERE) is None

    async def all_of_them(hub: Hub) -> None:
        for part in (begin, end, check):
            await part(hub)

    if restart:
        for part in (begin, end, check):
            with_hub(data, part, clock)
    else:
        with_hub(data, all_of_them, clock)


def test_another_operator_token_ends_the_sessions_of_the_one_before(tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def begin(hub: Hub) -> str:
        return await hub.logins.enter("operator", operator_token(hub), HERE)

    session = with_hub(data, begin)
    (data / "operator.token").write_text("efo_another\n")

    async def after(hub: Hub) -> None:
        assert hub.logins.principal(session, HERE) is None

    with_hub(data, after)


def test_a_link_works_once_for_a_while_and_for_its_user(tmp_path: Path) -> None:
    clock = ManualClock()

    async def body(hub: Hub) -> None:
        await add(hub, "ada", Role.OPERATOR)
        ada = hub.people.by_token(await token_of(hub, "ada", Role.VIEWER), HERE)
        code = hub.logins.link(ada).path.partition("=")[2]
        session = await hub.logins.enter_by_link(code, HERE)
        by = hub.logins.principal(session, HERE)
        assert by is not None
        assert (by.name, by.role) == ("ada", Role.VIEWER)
        again = await refusal(hub.logins.enter_by_link(code, HERE))
        assert "edgefleet hub login" in again.hint
        late = hub.logins.link(ada).path.partition("=")[2]
        clock.time += LOGIN_LINK_S
        await refusal(hub.logins.enter_by_link(late, HERE))
        ended = hub.logins.link(ada).path.partition("=")[2]
        await hub.people.revoke_token(ada.token, RevokeToken(), OPERATOR_TOKEN)
        await refusal(hub.logins.enter_by_link(ended, HERE))

    with_hub(tmp_path / "data", body, clock)


# Approvals, and the actors of the audit log.


async def planned(hub: Hub, tmp_path: Path, by: Principal, people: int) -> str:
    if not hub.models().models:
        await enrol_inside(hub, 3)
        await publish_inside(hub, KEY, tiny_release(tmp_path, "1"))
    spec = RolloutSpec(model="digits", release="1", approval=ApprovalSpec(people=people))
    return (await hub.plan(spec, by)).id


async def principals(hub: Hub, *names: str) -> list[Principal]:
    for name in names:
        await add(hub, name, Role.APPROVER, "")
    return [hub.people.by_token(await token_of(hub, name), HERE) for name in names]


def test_two_approvals_are_two_users_and_neither_planned_it(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        ada, bob, eve = await principals(hub, "ada", "bob", "eve")
        rollout = await planned(hub, tmp_path, ada, 2)
        texts = [wait.text for wait in hub.why_rollout(rollout).waits]
        assert any("not by ada, who planned it" in text for text in texts)
        error = await refusal(hub.approve(rollout, ApproveRequest(person="bob"), ada))
        assert (error.code, error.status) == ("approves_own_plan", 409)
        assert "edgefleet user add" in error.hint
        await hub.approve(rollout, ApproveRequest(person="someone"), bob)
        twice = hub.people.by_token(await token_of(hub, "bob"), HERE)
        error = await refusal(hub.approve(rollout, ApproveRequest(person="carol"), twice))
        assert error.code == "approved_already"
        view = await hub.approve(rollout, ApproveRequest(), eve)
        assert [given.person for given in view.approvals] == ["bob", "eve"]
        assert view.planned_by == "ada"
        assert "approval" not in {wait.code for wait in hub.why_rollout(rollout).waits}

    with_hub(tmp_path / "data", body)


def test_with_two_approvals_the_operator_token_is_one_person_by_any_name(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        (ada,) = await principals(hub, "ada")
        rollout = await planned(hub, tmp_path, ada, 2)
        await hub.approve(rollout, ApproveRequest(person="bob"), OPERATOR_TOKEN)
        error = await refusal(hub.approve(rollout, ApproveRequest(person="carol"), OPERATOR_TOKEN))
        assert error.code == "approved_already"

    with_hub(tmp_path / "data", body)


def test_the_operator_token_cannot_approve_what_it_planned_for_two(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        rollout = await planned(hub, tmp_path, OPERATOR_TOKEN, 2)
        error = await refusal(hub.approve(rollout, ApproveRequest(person="bob"), OPERATOR_TOKEN))
        assert error.code == "approves_own_plan"

    with_hub(tmp_path / "data", body)


def test_with_one_approval_the_operator_token_still_approves_under_a_name(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        rollout = await planned(hub, tmp_path, OPERATOR_TOKEN, 1)
        view = await hub.approve(rollout, ApproveRequest(person="alice"), OPERATOR_TOKEN)
        assert [given.person for given in view.approvals] == ["alice"]

    with_hub(tmp_path / "data", body)


def test_a_user_cannot_approve_the_own_plan_for_one(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        ada, bob = await principals(hub, "ada", "bob")
        rollout = await planned(hub, tmp_path, ada, 1)
        assert (await refusal(hub.approve(rollout, ApproveRequest(), ada))).code == (
            "approves_own_plan"
        )
        await hub.approve(rollout, ApproveRequest(), bob)

    with_hub(tmp_path / "data", body)


def test_every_line_of_a_person_has_name_way_and_address(tmp_path: Path) -> None:
    async def body(hub: Hub) -> None:
        ada, bob = await principals(hub, "ada", "bob")
        rollout = await planned(hub, tmp_path, ada, 1)
        await hub.approve(rollout, ApproveRequest(person="x", note="fine"), bob)
        await hub.freeze(Freeze(frozen=True, person="x"), ada)
        assert hub.frozen().person == "ada"
        entries = hub.audit(None, 100).entries
        by_action = {entry.action: entry for entry in entries}
        for action, by in (("plan", ada), ("approve", bob), ("note", bob), ("freeze", ada)):
            entry = by_action[action]
            assert (entry.actor, entry.way, entry.address) == (by.name, by.way, HERE), action
        claim = by_action["claim"]
        assert (claim.actor, claim.way) == ("operator", "operator token")
        assert by_action["enrol"].way == "claim"

    with_hub(tmp_path / "data", body)


def test_an_audit_log_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    async def nothing(_hub: Hub) -> None: ...

    with_hub(tmp_path / "data", nothing)
    with closing(sqlite3.connect(tmp_path / "data" / "hub.sqlite")) as stored, stored:
        stored.execute(
            "INSERT INTO audit (at, actor, action, about, detail) VALUES (1, 'operator', 'a', 'b', '')"
        )

    async def body(hub: Hub) -> None:
        [entry] = hub.audit(None, 5).entries
        assert (entry.actor, entry.way, entry.address) == ("operator", "", "")

    with_hub(tmp_path / "data", body)
