import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.errors import DeviceError
from edgefleet.security.credentials import (
    DeviceIdentity,
    bearer,
    issue_device_token,
    new_token,
    read_device_token,
    token_digest,
)

SECRET = b"s" * 32


@given(
    st.integers(0, 2**31),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,61}[A-Za-z0-9]", fullmatch=True),
)
def test_a_token_says_whose_it_is(row: int, name: str) -> None:
    device = DeviceIdentity(row, name)
    assert read_device_token(SECRET, issue_device_token(SECRET, device)) == device


@pytest.mark.parametrize("at", range(0, 48, 3))
def test_a_changed_token_is_refused(at: int) -> None:
    token = issue_device_token(SECRET, DeviceIdentity(7, "cam-7"))
    changed = token[:at] + ("0" if token[at % len(token)] != "0" else "1") + token[at + 1 :]
    with pytest.raises(DeviceError) as caught:
        read_device_token(SECRET, changed)
    assert caught.value.code == "credential_invalid"


@pytest.mark.parametrize(
    "token", ["", ".", "efd1", "efd1.1.x", "é.é.é.é", "efd1.1.cam." + "0" * 32]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(DeviceError):
        read_device_token(SECRET, token)


def test_another_hubs_token_is_refused() -> None:
    with pytest.raises(DeviceError):
        read_device_token(b"t" * 32, issue_device_token(SECRET, DeviceIdentity(1, "cam")))


def test_tokens_for_people_are_long_and_stored_as_digests() -> None:
    token = new_token(SeededEntropy(3), "efo")
    assert token.startswith("efo_")
    assert len(token) == 4 + 40
    assert token not in token_digest(token)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer abc", "abc"), ("Basic abc", ""), (None, ""), ("", "")],
)
def test_the_authorization_header_is_read(header: str | None, token: str) -> None:
    assert bearer(header) == token
