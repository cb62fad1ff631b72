"""A ledger from its page, and a sealed ledger, equal the ledger of all reports."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.device import Outcome, OutcomeKind, WrongBytes
from edgefleet.rollout.evidence.ledger import EXCLUDED, DeviceStanding, Ledger
from edgefleet.rollout.evidence.ledger_page import decode_page, encode_page
from support.plans import COURSE, START, outcome

ROWS = 31
WAVES = 3
Report = tuple[int, OutcomeKind, int, int]
REPORTS = st.lists(
    st.tuples(
        st.integers(0, ROWS - 1),
        st.sampled_from(list(OutcomeKind)),
        st.integers(1, 3),
        st.integers(0, 900),
    ),
    max_size=80,
)


def sent(kind: OutcomeKind, attempt: int, row: int) -> Outcome:
    found = outcome("ro", "1", kind, reason=f"r{row % 4}")
    wrong = WrongBytes(expected="a" * 64, found="b" * 64) if kind is OutcomeKind.DEFERRED else None
    return msgspec.structs.replace(
        found, id=f"{kind}-{attempt}", attempt=attempt, detail=f"{row}", wrong_bytes=wrong
    )


def record(ledger: Ledger, reports: list[Report]) -> None:
    for row, kind, attempt, at in reports:
        ledger.record(row, sent(kind, attempt, row), row % WAVES, START + at)


def whole(reports: list[Report]) -> Ledger:
    ledger = Ledger(WAVES, COURSE)
    record(ledger, reports)
    return ledger


def from_page(ledger: Ledger) -> Ledger:
    packed = encode_page(ledger.page())
    loaded = Ledger(WAVES, COURSE)
    loaded.load(decode_page(packed), packed)
    return loaded


def seen(ledger: Ledger) -> tuple[object, ...]:
    """All answers that need no column of starts."""
    rows, few = np.arange(ROWS), np.array([3, 4, 17, 40])
    reported = [one for one in DeviceStanding if one]
    return (
        [ledger.count(one) for one in DeviceStanding],
        [ledger.standing(row) for row in (*range(ROWS), 10_000)],
        ledger.standings(rows).tolist(),
        ledger.standings(few).tolist(),
        ledger.have(few, EXCLUDED).tolist(),
        [ledger.rows(one).tolist() for one in reported],
        ledger.rows(*reported).tolist(),
        ledger.exposed,
        [ledger.exposed_up_to(wave) for wave in range(WAVES)],
        ledger.reported_rows.tolist(),
        ledger.begun_rows.tolist(),
        ledger.exposed_mask(20).tolist(),
        ledger.exposed_mask(50).tolist(),
        ledger.reasons.counts(),
        ledger.reasons.examples(),
        [ledger.reasons.detail(row) for row in range(ROWS)],
        ledger.deferrals,
        ledger.wrong_bytes,
    )


def columns(ledger: Ledger) -> tuple[object, ...]:
    """All answers that need the columns of starts. They end the seal."""
    rows = np.arange(ROWS)
    nobody = np.zeros(0, np.int64)
    return (
        ledger.newest_first(rows).tolist(),
        ledger.began_between(rows, START + 100, START + 500).tolist(),
        ledger.healthy_since_episode,
        ledger.lost(ledger.rows(DeviceStanding.TRIAL), START + 901).tolist(),
        ledger.failures_in_order(nobody, lambda asked: np.zeros(len(asked), np.bool_)),
        ledger.activations.begun().tolist(),
        ledger.activations.episode_key,
    )


@given(REPORTS, REPORTS, st.lists(st.integers(0, ROWS - 1), max_size=3))
def test_a_ledger_from_its_page_equals_that_of_the_reports(
    before: list[Report], after: list[Report], gone: list[int]
):
    plain, sealed = whole(before), whole(before)
    loaded = from_page(plain)
    sealed.seal(encode_page(sealed.page()))
    assert seen(loaded) == seen(sealed) == seen(plain)
    assert loaded.page() == sealed.page() == plain.page()
    for ledger in (plain, sealed, loaded):
        record(ledger, after)
        for row in gone:
            ledger.forget(row)
    assert seen(loaded) == seen(sealed) == seen(plain)
    assert columns(loaded) == columns(sealed) == columns(plain)


@given(REPORTS)
def test_a_sealed_ledger_makes_its_columns_again_for_a_question(reports: list[Report]):
    plain = whole(reports)
    sealed = from_page(plain)
    assert columns(sealed) == columns(plain)
    assert seen(sealed) == seen(plain)


def test_a_batch_of_reports_ends_the_seal():
    reports = [(row, OutcomeKind.TRIAL_STARTED, 1, 5) for row in range(8)]
    plain, rows = whole(reports), np.arange(4, 12)
    sealed = from_page(plain)
    for ledger in (plain, sealed):
        said = sent(OutcomeKind.CONFIRMED, 1, 0)
        assert ledger.record_all(rows, said, np.zeros(8, np.int16), START + 9).all()
    assert seen(sealed) == seen(plain)


def test_a_sealed_ledger_takes_five_bytes_for_a_row_and_not_the_width_of_the_fleet():
    ledger = Ledger(WAVES, COURSE)
    rows = np.arange(500_000, 501_000)
    for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED):
        ledger.record_all(rows, sent(kind, 1, 0), np.zeros(1000, np.int16), START)
    packed = encode_page(ledger.page())
    ledger.seal(packed)
    assert len(packed) < 8_000
    assert ledger.standing(500_500) is DeviceStanding.HEALTHY
    assert ledger.count(DeviceStanding.HEALTHY) == 1000


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"?" + data[1:],
        lambda data: encode_page(msgspec.structs.replace(decode_page(data), bits=b"\x02")),
        lambda data: encode_page(msgspec.structs.replace(decode_page(data), format=2)),
    ],
)
def test_a_damaged_page_is_refused(harm: Callable[[bytes], bytes]):
    data = encode_page(
        whole([(1, OutcomeKind.CONFIRMED, 1, 2), (5, OutcomeKind.REFUSED, 1, 2)]).page()
    )
    with pytest.raises(ValueError, match="not a page"):
        decode_page(harm(data))


def test_a_page_with_waves_that_the_plan_has_not_is_refused_and_nothing_is_loaded():
    page = whole([(2, OutcomeKind.TRIAL_STARTED, 1, 2)]).page()  # in the third wave
    ledger = Ledger(2, COURSE)
    with pytest.raises(ValueError, match="waves"):
        ledger.load(page, encode_page(page))
    assert ledger.exposed == ledger.count(DeviceStanding.TRIAL) == 0
