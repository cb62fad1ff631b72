"""The table of wait codes."""

import pytest

from edgefleet.protocol.why import WAITS, Wait, WaitCode, WaitReport


@pytest.mark.parametrize("code", WaitCode)
def test_a_wait_reason_says_whether_it_needs_a_person(code: WaitCode) -> None:
    report = WaitReport(about="rollout/ro-1", at=0.0, line="", waits=(Wait(code=code, text=""),))
    assert report.for_a_person == (report.waits if WAITS[code].needs_a_person else ())


def test_the_table_names_each_reason_once() -> None:
    assert set(WAITS) == set(WaitCode)
