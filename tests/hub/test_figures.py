"""History, metrics and the loop: bounded, reduced, and delayed ticks are counted."""

import asyncio
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.exposition import Exposition, Histogram
from edgefleet.hub.limits import HISTORY_POINTS_SHOWN, HISTORY_S, STANDING_FLUSH_S
from edgefleet.hub.metrics import Gauges, Metrics
from edgefleet.hub.release_counts import ReleaseHistory
from edgefleet.hub.rollout_commands import RolloutCommands
from edgefleet.protocol.rollout import Command, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.why import WAITS, Wait, WaitCode, WaitReport
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import ManualClock, enrol_inside, hub_inside, publish_inside, report
from support.tiny_releases import tiny_release


def filled(seconds: int) -> ReleaseHistory:
    history = ReleaseHistory()
    for second in range(seconds):
        history.sample(float(second), {"digits": {"1": second}})
    return history


def test_history_is_bounded_and_keeps_the_newest() -> None:
    points = filled(HISTORY_S + 500).points("digits", None, None)
    assert len(points) == HISTORY_POINTS_SHOWN
    assert (points[0].at, points[-1].at) == (500.0, HISTORY_S + 499.0)


def test_history_is_thinned_evenly() -> None:
    points = filled(HISTORY_S).points("digits", None, None)
    gaps = {round(b.at - a.at) for a, b in itertools.pairwise(points)}
    assert max(gaps) - min(gaps) <= 1


def test_history_shows_the_time_of_the_rollout_and_its_model() -> None:
    points = filled(1000).points("digits", 500.0, 600.0)
    assert (points[0].at, points[-1].at) == (495.0, 630.0)
    assert points[0].on_release == {"1": 495}
    assert filled(10).points("faces", None, None)[0].on_release == {}
    assert filled(10).points("digits", 500.0, None) == ()


def test_a_sample_is_due_once_a_second_and_after_the_clock_was_set_back() -> None:
    history = ReleaseHistory()
    assert history.due(10.0)
    history.sample(10.0, {})
    assert [history.due(at) for at in (10.0, 10.9, 11.0, 9.0)] == [False, False, True, True]


def test_history_outlives_a_restart_and_damaged_files_do_not_count() -> None:
    before = filled(1000)
    after = ReleaseHistory()
    after.load(before.stored())
    whole, kept = (one.points("digits", None, None) for one in (before, after))
    assert (whole[0], whole[-1]) == (kept[0], kept[-1])
    assert len(kept) == HISTORY_POINTS_SHOWN
    for damaged in (b"", b"[", b'[{"at":1}]', before.stored()[:-3]):
        empty = ReleaseHistory()
        empty.load(damaged)
        assert empty.points("digits", None, None) == ()


def test_the_chart_and_the_ages_after_a_restart_say_what_is_known(tmp_path: Path) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with hub_inside(tmp_path / "data", clock) as hub:
            (device,) = await enrol_inside(hub, 1)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            plan = RolloutSpec(model="digits", release="1", waves=(WaveSpec(percent=100),))
            view = await hub.plan(plan, OPERATOR_TOKEN)
            await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            await report(hub, device, device.said())
            assert not hub.device(device.name).before_start
            for _ in range(3):
                clock.time += 1
                await hub.loop.tick()
            before = hub.history(view.id)
        clock.time += 5
        async with hub_inside(tmp_path / "data", clock) as hub:
            assert hub.history(view.id) == before
            assert len(before.points) == 3
            assert hub.device(device.name).before_start
            await report(hub, device, device.said())
            assert not hub.device(device.name).before_start

    asyncio.run(main())


def test_names_for_completion_begin_with_the_prefix_and_are_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await enrol_inside(hub, 3, prefix="cam")
            await enrol_inside(hub, 2, prefix="door")
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            assert hub.names("devices", "cam", "", 2).names == ("cam000", "cam001")
            assert hub.names("devices", "", "", 9).names[-1] == "door001"
            assert hub.names("models", "dig", "", 9).names == ("digits",)
            assert hub.names("releases", "", "digits", 9).names == ("1",)
            assert hub.names("rollouts", "", "", 9).names == ()
            for kind, model in (("nonsense", ""), ("releases", ""), ("releases", "none")):
                with pytest.raises(OperatorError) as caught:
                    hub.names(kind, "", model, 9)
                assert caught.value.code == "not_found"

    asyncio.run(main())


def test_any_label_value_survives_the_text_format() -> None:
    values = ["plain", 'quo"te', "back\\slash", "new\nline", "ünïcode"]
    out = Exposition()
    out.gauge("edgefleet_test", "A test.", "name", dict.fromkeys(values, 1.5))
    (family,) = text_string_to_metric_families(out.text())
    assert [sample.labels["name"] for sample in family.samples] == values
    assert {sample.value for sample in family.samples} == {1.5}


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    out = Exposition()
    out.histogram("edgefleet_test_seconds", "A test.", histogram)
    (family,) = text_string_to_metric_families(out.text())
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert buckets == {"0.1": 2, "1.0": 3, "+Inf": 4}
    sums = {s.name: s.value for s in family.samples if not s.labels}
    assert sums == {"edgefleet_test_seconds_sum": 7.65, "edgefleet_test_seconds_count": 4}


ONE = '[["digits","1","idle"]]'


def stored_standings(data_dir: Path) -> list[tuple[int, str, int]]:
    """The standings in the database, as (row of the device, models, sequence number)."""
    with closing(sqlite3.connect(f"file:{data_dir / 'hub.sqlite'}?mode=ro", uri=True)) as found:
        return found.execute(
            "SELECT row, model_list.models, seq FROM device_standing"
            " JOIN model_list ON number = device_standing.models ORDER BY row"
        ).fetchall()


def test_what_devices_run_is_written_lazily_and_known_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()

    async def before() -> None:
        async with hub_inside(tmp_path / "data", clock) as hub:
            devices = await enrol_inside(hub, 3)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            for device in devices[:2]:
                await report(hub, device, device.said(running="1"))
            await hub.loop.tick()
            assert stored_standings(tmp_path / "data") == []
            clock.time += STANDING_FLUSH_S
            await hub.loop.tick()
            assert stored_standings(tmp_path / "data") == [(0, ONE, 1), (1, ONE, 1)]
            await report(hub, devices[2], devices[2].said(running="1"))  # written by close

    async def after() -> None:
        async with hub_inside(tmp_path / "data", clock) as hub:
            devices = hub.devices(None, 10).devices
            assert [model.release for view in devices for model in view.models] == ["1"] * 3
            assert hub.fleet().on_release == {"digits": {"1": 3}}

    asyncio.run(before())
    asyncio.run(after())


@pytest.mark.parametrize("code", WaitCode)
def test_the_metrics_show_each_wait_that_needs_a_person(code: WaitCode) -> None:
    report = WaitReport(about="rollout/ro-1", at=0.0, line="", waits=(Wait(code=code, text=""),))
    gauges = Gauges(
        fleet=Fleet(listening_since=0.0, offline_after_s=60.0).figures(0.0),
        rollouts={},
        waits=[("ro-1", report)],
        quarantined=0,
        copied=0,
        ahead=0,
        unknown=0,
        labels=(),
        labels_waiting=0,
        writes=0,
        releases=0,
        queue_depth=0,
        uptime_s=0.0,
    )
    sample = f'edgefleet_rollout_waits_for_person{{rollout="ro-1",code="{code.value}"}} 1\n'
    assert (sample in Metrics().text(gauges)) is WAITS[code].needs_a_person


def test_the_loop_waits_out_a_store_that_cannot_write_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:

            async def full(_self: RolloutCommands) -> None:
                raise DeviceError("disk_full", "The hub's disk is full.")

            monkeypatch.setattr(RolloutCommands, "evaluate", full)
            await hub.loop.tick()
            await hub.loop.tick()
            assert "edgefleet_ticks_delayed_total 2" in hub.metrics()

    asyncio.run(main())


def test_a_rollout_has_a_picture(tmp_path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with hub_inside(tmp_path / "data", clock) as hub:
            devices = await enrol_inside(hub, 4)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            spec = RolloutSpec(model="digits", release="1", waves=(WaveSpec(percent=100),))
            rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
            await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
            for device in devices:
                await report(hub, device, device.said(running="1"))
                clock.time += 1
                await hub.loop.tick()
            shown = [point.on_release for point in hub.history(rollout).points]
            assert shown == [{"1": count} for count in (1, 2, 3, 4)]

    asyncio.run(main())


def test_two_plans_at_once_cannot_both_have_the_devices(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            await enrol_inside(hub, 4)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "1"))
            spec = RolloutSpec(model="digits", release="1")
            answers = await asyncio.gather(
                *(hub.plan(spec, OPERATOR_TOKEN) for _ in range(5)), return_exceptions=True
            )
            refused = [answer for answer in answers if isinstance(answer, BaseException)]
            assert len(refused) == 4
            assert all("rollout_overlap" in str(answer) for answer in refused)
            assert len(hub.rollouts().rollouts) == 1

    asyncio.run(main())
