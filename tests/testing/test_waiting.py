"""A wait in a test ends, and names what did not come."""

import pytest

from support.waiting import until


def test_a_wait_ends_when_it_holds() -> None:
    left = [1, 2, 3]
    until(lambda: not left, "The list is not empty.", between=left.pop)
    assert left == []


def test_a_wait_in_vain_names_what_did_not_come() -> None:
    with pytest.raises(AssertionError, match=r"No device came.*Waited 0.02 s"):
        until(lambda: False, "No device came.", within_s=0.02)
