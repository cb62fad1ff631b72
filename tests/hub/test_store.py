"""The store: one writer, group commit, migrations, durable before the answer."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.store import connection as connection_module
from edgefleet.hub.store import writer as writer_module
from edgefleet.hub.store.migrations import Migration, migrate, packaged
from edgefleet.hub.store.reader import Reader
from edgefleet.hub.store.records import StoredStanding
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import Facts, ModelReport, Outcome, OutcomeKind, Phase, WrongBytes
from edgefleet.rollout.lifecycle.step import AuditLine


def save_lines(
    store: SqliteStore, lines: Sequence[AuditLine], now: float
) -> "asyncio.Future[None]":
    """Write audit lines, with the state of a rollout."""
    return store.save_rollout("r", "{}", lines, now, lambda _none: None)


def line_of(actor: str, action: str, about: str, detail: str = "") -> AuditLine:
    return AuditLine(actor=actor, action=action, about=about, detail=detail)


FACTS = Facts(profile="generic_x86", agent_version="0.1.0")


def outcome(number: int, kind: OutcomeKind = OutcomeKind.CONFIRMED) -> Outcome:
    return Outcome(id=f"o{number}", rollout="r", release="2", kind=kind, at=1.0)


def with_store(path: Path, body: Callable[[SqliteStore, list[int]], Any]) -> Any:
    """Run ``body`` on a started store, with the number of writes at the end of each commit."""

    async def main() -> Any:
        store, commits = SqliteStore.open(path / "hub.sqlite"), []
        store.start(lambda _seconds: commits.append(store.writer.writes))
        try:
            return await body(store, commits)
        finally:
            await store.close()

    return asyncio.run(main())


async def enrol(store: SqliteStore, name: str, claim: str = "digest", **more: Any) -> Any:
    line = line_of("operator", "claim", "fleet")
    await store.save_claims([claim], more.pop("labels", {}), 100.0, line, 0.0)
    return await store.enrol(claim, name, {}, FACTS, now=1.0, committed=lambda _device: None)


async def hold(store: SqliteStore) -> tuple[threading.Event, "asyncio.Future[bool]"]:
    """Keep the writer busy until the event is set."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait(_connection: sqlite3.Connection) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return go_on.wait(30)

    job = store.writer.submit(wait)
    await begun.wait()
    return go_on, job


def test_many_reports_that_wait_share_one_commit(tmp_path: Path) -> None:
    async def body(store: SqliteStore, commits: list[int]) -> None:
        device = await enrol(store, "d")
        enrolled = commits[-1]
        commits.clear()
        go_on, first = await hold(store)
        reports = [
            store.save_outcomes(device.row, [outcome(n)], 1.0, lambda _fresh: None)
            for n in range(200)
        ]
        go_on.set()
        await asyncio.gather(first, *reports)
        assert commits == [enrolled + 1, enrolled + 1 + 200]

    with_store(tmp_path, body)


def test_an_outcome_is_kept_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        device = await enrol(store, "d")
        told: list[tuple[Outcome, ...]] = []
        for sent in ([outcome(1)], [outcome(1), outcome(2)], [outcome(2), outcome(1)]):
            await store.save_outcomes(device.row, sent, 1.0, told.append)
        assert told == [(outcome(1),), (outcome(2),), ()]
        assert [kept.outcome for kept in store.reader.outcomes_after(0)] == [outcome(1), outcome(2)]

    with_store(tmp_path, body)


def test_the_same_id_from_two_devices_is_two_outcomes(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        for name in ("a", "b"):
            device = await enrol(store, name, claim=name)
            await store.save_outcomes(device.row, [outcome(1)], 1.0, lambda _fresh: None)
        assert [kept.row for kept in store.reader.outcomes_after(0)] == [0, 1]

    with_store(tmp_path, body)


def test_the_wrong_bytes_of_a_deferral_are_kept(tmp_path: Path) -> None:
    deferral = replace(
        outcome(1, OutcomeKind.DEFERRED),
        wrong_bytes=WrongBytes(expected="a" * 64, found="b" * 64),
    )

    async def body(store: SqliteStore, _commits: list[int]) -> None:
        device = await enrol(store, "d")
        await store.save_outcomes(device.row, [deferral], 1.0, lambda _fresh: None)
        assert [kept.outcome for kept in store.reader.outcomes_after(0)] == [deferral]

    with_store(tmp_path, body)


def test_one_bad_job_does_not_take_its_neighbours_down(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        def bad(_connection: sqlite3.Connection) -> None:
            raise DeviceError("claim_unknown", "No.")

        lines = [save_lines(store, [line_of("operator", f"a{n}", "x")], 1.0) for n in range(3)]
        refused = store.writer.submit(bad)
        lines += [save_lines(store, [line_of("operator", f"a{n}", "x")], 1.0) for n in range(3, 6)]
        await asyncio.gather(*lines)
        with pytest.raises(DeviceError, match="claim_unknown"):
            await refused
        assert [entry.action for entry in store.reader.audit(None, 10)] == [
            f"a{n}" for n in range(5, -1, -1)
        ]

    with_store(tmp_path, body)


def test_memory_changes_in_the_order_of_the_commits(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        seen: list[int] = []
        jobs = [store.writer.submit(lambda _c, n=n: n, seen.append) for n in range(500)]
        for job in jobs[::3]:
            job.cancel()  # the caller was cancelled: the commit still counts
        await asyncio.gather(*jobs, return_exceptions=True)
        assert seen == list(range(500))

    with_store(tmp_path, body)


def test_a_full_queue_refuses_instead_of_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WRITES_WAITING", 3)

    async def body(store: SqliteStore, _commits: list[int]) -> None:
        go_on, job = await hold(store)
        jobs: list[asyncio.Future[Any]] = [job]
        jobs += [store.writer.submit(lambda _c: None) for _ in range(3)]
        with pytest.raises(DeviceError, match="overloaded"):
            store.writer.submit(lambda _c: None)
        go_on.set()
        await asyncio.gather(*jobs)

    with_store(tmp_path, body)


def test_a_full_disk_is_a_typed_error_and_the_store_goes_on(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        def limit(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        await store.writer.submit(limit)
        with pytest.raises(DeviceError, match="disk_full"):
            await save_lines(store, [line_of("operator", "a", "x", "y" * 100_000)], 1.0)
        await save_lines(store, [line_of("operator", "small", "x")], 1.0)
        assert [entry.action for entry in store.reader.audit(None, 10)] == ["small"]

    with_store(tmp_path, body)


def test_a_database_that_another_program_holds_is_waited_for_and_then_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LOCK_WAIT_S", 0.05)

    async def body(store: SqliteStore, commits: list[int]) -> None:
        begun: list[str] = []
        await store.writer.submit(lambda connection: connection.set_trace_callback(begun.append))
        other = sqlite3.connect(tmp_path / "hub.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        jobs = [save_lines(store, [line_of("operator", "refused", "x")], 1.0) for _ in range(50)]
        refused = await asyncio.gather(*jobs, return_exceptions=True)
        assert {getattr(error, "code", None) for error in refused} == {"overloaded"}
        assert 1 <= begun.count("BEGIN IMMEDIATE") <= 2  # the jobs did not wait for each other
        other.execute("ROLLBACK")
        other.close()
        await save_lines(store, [line_of("operator", "kept", "x")], 1.0)
        assert [entry.action for entry in store.reader.audit(None, 10)] == ["kept"]

    with_store(tmp_path, body)


def test_the_audit_log_cannot_be_changed_or_shortened(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        await save_lines(store, [line_of("operator", "start", "rollout/r")], 1.0)
        for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"):
            with pytest.raises(sqlite3.IntegrityError, match="audit log"):
                await store.writer.submit(lambda c, s=statement: c.execute(s))
        assert [entry.actor for entry in store.reader.audit(None, 10)] == ["operator"]

    with_store(tmp_path, body)


@pytest.mark.parametrize(
    ("claim", "name", "now", "code"),
    [
        ("none", "new", 1.0, "claim_unknown"),
        ("used", "new", 1.0, "claim_used"),
        ("fresh", "new", 100.0, "claim_expired"),
        ("fresh", "taken", 1.0, "device_name_taken"),
    ],
)
def test_a_claim_enrols_one_device_in_time(
    tmp_path: Path, claim: str, name: str, now: float, code: str
) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        await enrol(store, "taken", claim="used")
        await store.save_claims(["fresh"], {}, 100.0, line_of("operator", "claim", "fleet"), 0.0)
        with pytest.raises(DeviceError, match=code):
            await store.enrol(claim, name, {}, FACTS, now=now, committed=lambda _device: None)
        assert [device.name for device in store.reader.load_devices()] == ["taken"]
        await store.enrol("fresh", "other", {}, FACTS, now=1.0, committed=lambda _device: None)

    with_store(tmp_path, body)


def test_labels_of_a_claim_are_those_of_the_operator(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        line = line_of("operator", "claim", "fleet")
        await store.save_claims(["c"], {"site": "lyon"}, 100.0, line, 0.0)
        own = {"site": "everywhere", "colour": "red"}
        device = await store.enrol("c", "d", own, FACTS, now=1.0, committed=lambda _device: None)
        assert (device.labels, device.own_labels) == ({"site": "lyon"}, own)

    with_store(tmp_path, body)


def test_the_schema_is_applied_once_and_remembered(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(connection, packaged())
    migrate(connection, packaged())
    rows = connection.execute("SELECT number, sha256 FROM migration").fetchall()
    assert rows == [(step.number, step.sha256) for step in packaged()]
    numbers = [step.number for step in packaged()]
    assert numbers == sorted(set(numbers))


def test_a_step_with_a_lower_number_is_applied_after_a_higher_one(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    steps = tuple(Migration(number, f"CREATE TABLE t{number} (a);") for number in (1, 2, 4))
    migrate(connection, (steps[0], steps[2]))
    migrate(connection, steps)
    rows = connection.execute("SELECT number FROM migration ORDER BY number").fetchall()
    assert rows == [(1,), (2,), (4,)]
    connection.execute("SELECT * FROM t2")


def test_stored_offers_to_agents_of_protocol_1_are_removed(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(connection, packaged()[:3])
    connection.execute("INSERT INTO device VALUES (0, 'd', 0, '{}', '{}')")
    for id_, kind in (("a", "offered"), ("b", "trial_started")):
        connection.execute(
            "INSERT INTO outcome (device, id, rollout, release, kind, at, reason, detail,"
            " received_at) VALUES (0, ?, 'ro-1', '1', ?, 0, '', '', 0)",
            (id_, kind),
        )
    migrate(connection, packaged())
    assert connection.execute("SELECT id FROM outcome").fetchall() == [("b",)]


def test_standings_of_one_model_become_lists_of_models(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(connection, packaged()[:4])
    old = [
        (0, 5.0, 9, "digits", "2", "idle"), (1, 6.0, 8, "digits", "2", "idle"),
        (2, 7.0, 7, "digits", "1", "trial"), (3, 8.0, 6, None, None, "fetching"),
        (4, 9.0, 5, None, None, "idle"),
    ]  # fmt: skip
    connection.executemany("INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?)", old)
    migrate(connection, packaged())
    assert connection.execute("SELECT count(*) FROM model_list").fetchone() == (4,)
    found = Reader(connection)
    digits = ModelReport(model="digits", release="2")
    assert list(found.load_standings()) == [
        StoredStanding(0, 5.0, 9, 0, (digits,)),
        StoredStanding(1, 6.0, 8, 0, (digits,)),
        StoredStanding(2, 7.0, 7, 0, (replace(digits, release="1", phase=Phase.TRIAL),)),
        StoredStanding(3, 8.0, 6, 0, (ModelReport(model="", phase=Phase.FETCHING),)),
        StoredStanding(4, 9.0, 5, 0, ()),
    ]


def test_lists_of_models_that_no_device_has_any_more_are_removed(tmp_path: Path) -> None:
    one, other = (ModelReport(model="digits", release=release) for release in "12")

    async def body(store: SqliteStore, _commits: list[int]) -> None:
        for report in (one, other, other):
            await store.save_standings([StoredStanding(0, 1.0, 1, 3, (report,))])

    async def after(store: SqliteStore, _commits: list[int]) -> None:
        assert list(store.reader.load_standings()) == [StoredStanding(0, 1.0, 1, 3, (other,))]
        with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as found:
            assert found.execute("SELECT count(*) FROM model_list").fetchone() == (1,)

    with_store(tmp_path, body)
    with_store(tmp_path, after)


@pytest.mark.parametrize("tamper", ["changed", "newer"])
def test_a_database_of_another_version_is_left_alone(tmp_path: Path, tamper: str) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    migrate(connection, packaged())
    if tamper == "changed":
        connection.execute("UPDATE migration SET sha256 = 'other' WHERE number = 1")
    else:
        connection.execute("INSERT INTO migration VALUES (9999, 'newer')")
    before = list(connection.iterdump())
    with pytest.raises(OperatorError, match="store_foreign"):
        migrate(connection, packaged())
    assert list(connection.iterdump()) == before


def test_a_step_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    broken = Migration(1, "CREATE TABLE one (a); CREATE TABLE one (a);")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (broken,))
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'one'").fetchall() == []
    migrate(connection, (Migration(1, "CREATE TABLE one (a);"),))


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    """With these two settings SQLite guarantees that a commit is durable."""

    async def body(store: SqliteStore, _commits: list[int]) -> None:
        def settings(connection: sqlite3.Connection) -> tuple[str, int]:
            (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
            (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
            return journal, synchronous

        full = 2
        assert await store.writer.submit(settings) == ("wal", full)

    with_store(tmp_path, body)


def test_claims_that_nobody_used_are_forgotten_in_the_end(tmp_path: Path) -> None:
    async def body(store: SqliteStore, _commits: list[int]) -> None:
        line = line_of("operator", "claim", "fleet")
        await enrol(store, "old", "used")
        await store.save_claims(["unused"], {}, 100.0, line, 0.0)
        week = 7 * 86_400.0
        for later, code in ((100.0 + week, "claim_expired"), (101.0 + week, "claim_unknown")):
            await store.save_claims([f"fresh {later}"], {}, later + 1, line, later)
            with pytest.raises(DeviceError, match=code):
                store.reader.check_claim("unused", later)
        with pytest.raises(DeviceError, match="claim_used"):
            store.reader.check_claim("used", later)

    with_store(tmp_path, body)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OperatorError, match="data_dir_damaged"):
        SqliteStore.open(tmp_path / "hub.sqlite")


WRITE_UNTIL_KILLED = textwrap.dedent(
    """
    import asyncio, sys
    from functools import partial
    from pathlib import Path
    from edgefleet.hub.store.sqlite import SqliteStore

    def write(number, connection):
        connection.execute(
            "INSERT INTO audit (at, actor, action, about, detail) VALUES (1.0, 'operator', ?, 'x', '')",
            (str(number),),
        )

    async def main():
        store = SqliteStore.open(Path(sys.argv[1]))
        store.start(lambda _seconds: None)
        number = 0
        while True:
            jobs = [store.writer.submit(partial(write, number + n)) for n in range(7)]
            await asyncio.gather(*jobs)
            number += 7
            print(number, flush=True)

    asyncio.run(main())
    """
)


def test_what_was_acknowledged_survives_a_killed_writer(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 140:
            os.kill(process.pid, signal.SIGKILL)
            break
    told = [int(line), *(int(rest) for rest in process.stdout)]
    process.stdout.close()
    process.wait()

    async def body(store: SqliteStore, _commits: list[int]) -> list[str]:
        return [entry.action for entry in store.reader.audit(None, 100_000)]

    kept = with_store(tmp_path, body)
    assert kept == [str(number) for number in range(len(kept) - 1, -1, -1)]
    assert len(kept) >= told[-1]
