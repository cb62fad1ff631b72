"""Waves by percent, count and selector: every eligible device is in exactly one of them."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import MASK64
from edgefleet.protocol.rollout import Verb, WaveSpec
from edgefleet.protocol.version import PROTOCOL
from edgefleet.rollout import active as track_module
from support.fleets import CheckedFleet, memory_hub
from support.plans import manifest, spec

SITES = ("lyon", "oslo", "rome")
SIZES = st.one_of(
    st.fixed_dictionaries({"percent": st.floats(0.1, 100)}),
    st.fixed_dictionaries({"count": st.integers(1, 80)}),
    st.just({}),
)
SELECTORS = st.sampled_from(["", "site=lyon", "site=oslo", "tier=gold", "site in (lyon,rome)"])
WAVES = st.lists(
    st.builds(lambda size, selector: WaveSpec(**size, selector=selector), SIZES, SELECTORS),
    min_size=1,
    max_size=6,
)
FLEETS = st.lists(
    st.tuples(
        st.sampled_from(SITES), st.sampled_from(["gold", "tin"]), st.sampled_from(["x", "odd"])
    ),
    min_size=1,
    max_size=100,
)


def check_partition(
    fleet: Sequence[tuple[str, str, str]], waves: Sequence[WaveSpec], salt: int
) -> None:
    """Advance by hand through all waves; check the partition in each."""
    hub = memory_hub(0)
    hub.add_device("first", "x", {"site": "lyon", "tier": "gold"})
    for number, (site, tier, profile) in enumerate(fleet):
        hub.add_device(f"d{number}", profile, {"site": site, "tier": tier})
    hub.add_release(manifest("1", ("x",)))
    wanted = replace(spec("1"), waves=tuple(waves), skip_ineligible=True)
    try:
        rollout = hub.start(wanted, salt=salt)
    except OperatorError as error:
        assert error.code in ("waves_invalid", "percent_not_rising", "fleet_empty")  # noqa: PT017 - a refused plan is fine
        return
    active = hub.engine.rollout(rollout)
    profiles = ["x", *(profile for _, _, profile in fleet)]
    eligible = {row for row, profile in enumerate(profiles) if profile == "x"}
    covered: set[int] = set()
    while rollout in hub.engine.open_rollouts():
        inside = set(active.members().tolist())
        wave = active.state.open_wave
        assert wave is not None
        assert covered <= inside <= eligible, "waves only grow"
        assert len(inside) == wave.cut
        assert inside == {row for row in eligible if active.inside(row)}
        covered = inside
        hub.command(rollout, Verb.ADVANCE)
    assert covered == eligible, "each eligible device is in a wave"
    firsts = [active.position(row).wave for row in eligible]
    assert None not in firsts
    total = 0
    for index in range(len(active.parts)):
        total += firsts.count(index)
        assert total == active.state.waves[index].cut


@settings(max_examples=150)
@given(fleet=FLEETS, waves=WAVES, salt=st.integers(0, MASK64))
def test_every_eligible_device_is_in_exactly_one_wave(
    fleet: list[tuple[str, str, str]], waves: list[WaveSpec], salt: int
):
    check_partition(fleet, waves, salt)


def test_waves_that_forget_those_before_them_are_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(track_module, "reach", lambda parts: parts[-1:])
    waves = [WaveSpec(selector="site=oslo"), WaveSpec(selector="site=rome")]
    with pytest.raises(AssertionError):
        check_partition([("oslo", "tin", "x"), ("rome", "tin", "x")] * 9, waves, 7)


@pytest.mark.parametrize(
    ("wave", "code", "field"),
    [
        (WaveSpec(), "waves_invalid", "waves[0]"),
        (WaveSpec(percent=1, count=1), "waves_invalid", "waves[0]"),
        (WaveSpec(count=0), "waves_invalid", "waves[0].count"),
        (WaveSpec(percent=0, selector="site=s1"), "percent_out_of_range", "waves[0].percent"),
        (WaveSpec(selector="town=x"), "selector_key_unknown", "waves[0].selector"),
        (WaveSpec(selector="site in ("), "selector_invalid", "waves[0].selector"),
        (WaveSpec(selector="site=nowhere"), "fleet_empty", "waves[0].selector"),
    ],
)
def test_a_wave_that_cannot_be_is_refused_with_its_field(wave: WaveSpec, code: str, field: str):
    hub = memory_hub(9, "1")
    with pytest.raises(OperatorError) as caught:
        hub.plan(replace(spec("1"), waves=(wave,)))
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize(
    "waves",
    [
        (WaveSpec(count=5), WaveSpec(count=5)),
        (WaveSpec(selector="site=s1"), WaveSpec(selector="site=s1", count=3)),
        (WaveSpec(percent=100), WaveSpec(percent=100)),
    ],
)
def test_a_wave_that_cannot_add_a_device_is_refused(waves: tuple[WaveSpec, ...]):
    hub = memory_hub(9, "1")
    with pytest.raises(OperatorError) as caught:
        hub.plan(replace(spec("1"), waves=waves))
    assert caught.value.code in ("waves_invalid", "percent_not_rising")


def test_the_rest_is_the_last_wave_and_each_has_its_name():
    fleet = CheckedFleet(30)
    fleet.publish("1")
    waves = (
        WaveSpec(selector="site=s1"),
        WaveSpec(count=15),
        WaveSpec(percent=50, selector="site=s2"),
    )
    view = fleet.finish(fleet.start(replace(spec("1"), waves=waves)))
    assert [wave.name for wave in view.waves] == [
        "site=s1", "15 devices", "50 % of site=s2", "the rest",
    ]  # fmt: skip
    assert view.waves[0].cut == 10
    assert view.waves[-1].cut == fleet.on_release()["1"] == 30


def test_devices_that_the_release_does_not_fit_are_counted_by_reason():
    hub = memory_hub(4, "1")
    labels = {"site": "s0"}
    hub.add_device("other", "coral", labels)
    hub.add_device("lite", labels=labels, runtimes=("litert",))
    hub.add_device("tiny", labels=labels, memory_mib=16)
    hub.engine.fleet.set_protocol(hub.add_device("old", labels=labels), PROTOCOL + 1)
    view = hub.view(hub.plan(replace(spec("1"), skip_ineligible=True)))
    assert view.ineligible == {
        "no_variant": 1, "runtime_missing": 1, "memory_too_small": 1, "agent_too_old": 1,
    }  # fmt: skip
    for row in range(4, 8):
        assert hub.engine.why_device(row, hub.now).waits[-1].code.value == "ineligible"
    wait = hub.engine.why_rollout(view.id, hub.now).waits[-1]
    assert (wait.code.value, wait.devices) == ("ineligible", 4)
