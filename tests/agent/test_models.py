"""Several models on one device: they share its link, disk and serving process, and one trial."""

from collections.abc import Callable

import pytest

from edgefleet.agent import limits
from edgefleet.agent.effect import CancelStaging, Effect, Fetch, FetchManifest
from edgefleet.agent.event import Event
from edgefleet.agent.slots import POINTER, STATE, path
from edgefleet.agent.state import AgentState, slot
from edgefleet.agent.step import step
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer, OutcomeKind, Switch
from support.agent_world import model_bytes
from support.device_world import MODELS, World, at_rest
from support.memory_storage import PowerCut, When
from support.own_files import content, lose, replace


def started(world: World | None = None) -> World:
    world = world or World()
    world.boot()
    world.start()
    return world


def with_release_1(*models: str, world: World | None = None) -> World:
    """A device that serves release 1 of each of ``models``, confirmed."""
    world = started(world)
    for model in models:
        world.offer("1", model=model)
    world.run(at_rest)
    assert {model: world.pointed(model) for model in models} == dict.fromkeys(models, "1")
    return world


def stage_of(world: World, model: str) -> Stage:
    mine = world.state.models.get(model)
    return mine.stage if mine else Stage.IDLE


def until(model: str, *stages: Stage) -> Callable[[World], bool]:
    return lambda world: stage_of(world, model) in stages


def test_second_model_is_added_and_first_keeps_serving() -> None:
    world = with_release_1("digits")
    served: set[str | None] = set()
    world.offer("1", model="detector")

    def watched(world: World) -> bool:
        served.add(world.served("digits"))
        return at_rest(world)

    world.run(watched)
    assert served == {"1"}
    assert content(world.storage.files, POINTER) == b"detector a\ndigits a\n"
    assert {one.model for one in world.serving.models} == {"detector", "digits"}  # type: ignore[union-attr] - it serves
    assert world.hub.runs("detector") == world.hub.runs("digits") == "1"


def test_two_models_staged_hub_admits_one() -> None:
    world = with_release_1("detector", "digits")
    world.hub.refuses_starts = 1 << 30
    for model in ("detector", "digits"):
        world.offer("2", model=model)
    world.run(lambda world: world.asking() == {"detector", "digits"})
    asked = [one for one in world.state.spool if one.kind is OutcomeKind.TRIAL_STARTED]
    assert len(asked) == 2, "the device asks for each staged release"
    world.hub.refuses_starts = 0
    world.run(until("detector", Stage.WATCHING))
    assert stage_of(world, "digits") is Stage.STAGED
    assert world.state.spool == (), "no start is asked for beside a trial"
    world.run(at_rest)
    assert world.told("ro-detector-2") == world.told("ro-2") == ["trial_started", "confirmed"]


def test_hub_acks_two_starts_second_is_withdrawn() -> None:
    world = with_release_1("detector", "digits")
    world.hub.refuses_starts = 1 << 30
    for model in ("detector", "digits"):
        world.offer("2", model=model)
    world.run(lambda world: world.asking() == {"detector", "digits"})
    world.hub.refuses_starts, world.hub.admits_all = 0, True
    world.run(until("detector", Stage.WATCHING))
    world.hub.admits_all = False
    assert stage_of(world, "digits") in (Stage.IDLE, Stage.STAGED)
    world.run(lambda world: "withdrawn" in world.told("ro-2"))
    world.run(at_rest)
    assert world.told("ro-detector-2") == ["trial_started", "confirmed"]
    assert world.told("ro-2") == ["trial_started", "withdrawn", "trial_started", "confirmed"]
    assert world.activations.count("2") == 2, "the withdrawn release did not run in between"


def test_answer_to_start_lost_same_unit_is_asked_again() -> None:
    world = with_release_1("detector", "digits")
    for model in ("detector", "digits"):
        world.offer("2", model=model)
    asked: list[list[str]] = []
    take = world.hub.take

    def forgetful(said: CheckIn) -> CheckInAnswer:
        starts = [one.id for one in said.outcomes if one.kind is OutcomeKind.TRIAL_STARTED]
        answer = take(said)
        if starts:
            asked.append(starts)
        if len(asked) == 1:
            raise world.no_answer()
        return answer

    world.hub.take = forgetful  # type: ignore[method-assign] - planted
    world.run(at_rest)
    assert asked[0] == asked[1][:1], "the start whose answer was lost is asked for first"
    assert world.told("ro-detector-2") == world.told("ro-2") == ["trial_started", "confirmed"]


def test_going_back_stops_a_neighbours_download() -> None:
    stopped: list[str] = []
    fetched: list[str] = []

    def core(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
        state, effects = step(state, event, now)
        stopped.extend(one.model for one in effects if isinstance(one, CancelStaging))
        fetched.extend(one.model for one in effects if isinstance(one, FetchManifest | Fetch))
        return state, effects

    world = with_release_1("detector", "digits", world=World(core=core))
    for release in ("2", "sick"):  # release 1 is no longer on the device then
        world.offer(release)
        world.run(at_rest)
    world.offer("2", model="detector")
    world.slow.add("detector")
    world.run(until("detector", Stage.FETCHING))
    world.offer("1", action="revert", rollout="ro-2")
    stopped.clear()
    world.run(until("digits", Stage.MANIFEST), drain=False)
    world.slow.clear()
    assert stopped == ["detector"]
    assert stage_of(world, "detector") is Stage.QUEUED
    fetched.clear()
    world.run(until("digits", Stage.PROVING), drain=False)
    assert fetched == ["digits", "digits", "detector"], "the link is the returning model's first"
    world.run(at_rest)
    assert world.running("detector") == "2"


def test_a_model_goes_back_at_once_beside_a_trial_and_no_other_trial_begins() -> None:
    world = with_release_1("detector", "digits", "gate")
    world.hub.interval_s = 1.0
    world.offer("2")
    world.run(at_rest)
    world.offer("2", model="detector")
    world.run(until("detector", Stage.WATCHING), drain=False)
    world.offer("1", action="revert", rollout="ro-2")
    world.offer("2", model="gate")
    world.run(lambda world: world.running() == "1", drain=False)
    assert stage_of(world, "detector") is Stage.WATCHING, "the trial beside it goes on"
    assert world.served("detector") == "2"
    world.run(at_rest)
    assert (world.running("detector"), world.running("gate")) == ("2", "2")


def test_power_cut_between_apply_and_pointer() -> None:
    world = with_release_1("detector", "digits")
    world.offer("2")
    world.run(until("digits", Stage.WATCHING), drain=False)

    def cut_before_pointer(target: str, data: bytes, write=world.storage.write) -> None:  # type: ignore[no-untyped-def] - the method
        if target == POINTER:
            raise PowerCut
        write(target, data)

    world.storage.write = cut_before_pointer  # type: ignore[method-assign] - planted
    with pytest.raises(PowerCut):
        world.run(at_rest)
    del world.storage.write  # type: ignore[method-assign] - as before
    assert world.pointed() == "1"
    world.check()
    started(world)
    assert world.pointed() == "2", "the state decides"
    world.run(at_rest)
    assert (world.served("digits"), world.served("detector")) == ("2", "1")


def test_state_lost_pointer_serves_all_models() -> None:
    world = with_release_1(*MODELS)
    world.offer("2", model="gate")
    world.run(until("gate", Stage.WATCHING), drain=False)
    lose(world.storage.files, STATE)
    world.hub.offers.clear()
    started(world)
    world.run(lambda world: world.serving is not None and len(world.serving.models) == len(MODELS))
    assert [world.served(model) for model in MODELS] == ["1", "1", "1"], (
        "a release in trial is not confirmed"
    )
    world.check()


def test_one_line_of_the_pointer_names_an_unknown_model() -> None:
    world = with_release_1("detector", "digits")
    lose(world.storage.files, STATE)
    lines = b"../../etc a\ndetector a\nghost b\ndigits a\ngate c\n"
    replace(world.storage.files, POINTER, lines)
    started(world)
    world.run(lambda world: world.serving is not None)
    assert sorted(world.state.models) == ["detector", "digits"]
    assert (world.served("detector"), world.served("digits")) == ("1", "1")
    assert content(world.storage.files, POINTER) == b"detector a\ndigits a\n", (
        "the file is put right"
    )


def test_damaged_slot_of_one_model_leaves_others() -> None:
    world = with_release_1(*MODELS)
    world.hub.offers.clear()
    world.storage.files[path("digits", "a", "model.onnx")] = b"zeros"
    started(world)
    world.run(lambda world: world.serving is not None)
    assert world.state.models["digits"].active is None
    assert (world.served("detector"), world.served("gate")) == ("1", "1")
    assert content(world.storage.files, POINTER) == b"detector a\ngate a\n"
    world.offer("1", rollout="ro-again")
    world.run(lambda world: world.pointed() == "1")
    assert world.served("digits") == "1", "the hub offers it again, as the device reports none"


def test_a_release_of_another_model_that_cannot_be_loaded_is_not_blamed_on_the_trial() -> None:
    world = with_release_1("detector", "digits")
    world.offer("2")
    whole = world.storage.files[path("detector", "a", "model.onnx")]
    world.run(until("digits", Stage.ANNOUNCING), drain=False)
    world.storage.files[path("detector", "a", "model.onnx")] = b"zeros"
    world.run(lambda world: world.state.soft.switch_failures == 1, drain=False)
    assert stage_of(world, "digits") is Stage.ACTIVATING
    world.storage.files[path("detector", "a", "model.onnx")] = whole
    world.run(at_rest)
    assert world.told("ro-2")[-1] == "confirmed"


def test_a_trial_beside_a_model_that_cannot_be_loaded_ends_after_a_bound() -> None:
    world = with_release_1("detector", "digits")
    world.offer("2")
    world.run(until("digits", Stage.ANNOUNCING), drain=False)
    whole = world.storage.files[path("detector", "a", "model.onnx")]
    world.storage.files[path("detector", "a", "model.onnx")] = b"zeros"
    world.run(lambda world: stage_of(world, "digits") is Stage.REVERTING)
    world.storage.files[path("detector", "a", "model.onnx")] = whole
    world.run(at_rest)
    (failed,) = [one for one in world.hub.outcomes.values() if one.kind == "trial_failed"]
    assert (failed.rollout, failed.reason) == ("ro-2", "neighbour_harmed")
    assert "detector could not be served" in failed.detail


def test_rollout_ends_while_unit_is_queued() -> None:
    world = with_release_1("detector", "digits")
    used = sum(map(len, world.storage.files.values()))
    world.storage.capacity_bytes = used + limits.DISK_MARGIN_BYTES // 2
    world.offer("2")
    world.run(until("digits", Stage.QUEUED))
    assert world.told("ro-2") == ["deferred"]
    world.hub.offer = None
    world.run(at_rest)
    assert (world.served("digits"), world.told("ro-2")) == ("1", ["deferred"])
    world.storage.capacity_bytes = 1 << 40
    world.offer("2", rollout="ro-again")
    world.run(at_rest)
    assert world.served("digits") == "2"


def test_idle_slot_dropped_is_not_a_way_back_in_use() -> None:
    world = with_release_1("detector", "digits")
    world.offer("2")
    world.run(at_rest)
    world.hub.refuses_starts = 1 << 30
    world.offer("2", model="detector")
    world.run(until("detector", Stage.ANNOUNCING))
    del world.hub.offers["detector"]
    world.run(at_rest)
    assert slot(world.state.models["detector"], "b").installed is not None
    staged = path("detector", "b", "model.onnx")

    def space(_model: str, _slot: str) -> tuple[int, int]:
        freed = 0 if staged in world.storage.files else 5000
        return limits.DISK_MARGIN_BYTES + 10 + freed, 0

    world.fetcher.space = space  # type: ignore[method-assign] - a full disk
    world.offer("1", model="gate")
    world.run(until("gate", Stage.ANNOUNCING))
    assert slot(world.state.models["detector"], "b").installed is None, "a cancelled attempt's"
    way_back = path("digits", "a", "model.onnx")
    assert world.storage.files[way_back] == model_bytes("1"), "the previous release stays"
    world.hub.offers.clear()
    world.offer("1", action="revert", rollout="ro-2")
    served = world.hub.served_bytes
    world.run(lambda world: world.running() == "1")
    assert world.hub.served_bytes == served, "going back needs no download"


def test_telemetry_of_equal_release_names_of_two_models() -> None:
    world = with_release_1("detector", "digits")
    world.requests = {"detector": 30, "digits": 70}
    world.run(lambda world: world.reported().keys() == {"detector", "digits"})
    last = [one for one in world.hub.check_ins if one.telemetry is not None][-2:]
    assert {one.telemetry.model for one in last if one.telemetry} == {"detector", "digits"}, (
        "one model in a check-in, in turn"
    )
    assert {one.telemetry.release for one in last if one.telemetry} == {"1"}
    world.requests = {}
    world.run(lambda world: not any(soft.tallies for soft in world.state.soft.models.values()))
    for model, requests in world.reported().items():
        assert requests == world.served_requests[model], "no request is counted for the other"


def test_a_heartbeat_names_no_model_and_a_change_names_its_own() -> None:
    world = with_release_1(*MODELS)
    world.hub.check_ins.clear()
    world.hub.offers.clear()
    world.run(lambda world: len(world.hub.check_ins) == 3)
    assert [one.models for one in world.hub.check_ins] == [(), (), ()]
    assert world.hub.check_ins[-1].digest
    world.hub.check_ins.clear()
    world.offer("2")
    world.run(at_rest)
    changes = [said for said in world.hub.check_ins if said.models]
    assert {one.model for said in changes for one in said.models} == {"digits"}
    givers = {said.models[0].release: dict(said.given)["digits"] for said in changes}
    assert givers.keys() == {"1", "2"}
    assert givers["1"] != givers["2"], "a change names the rollout that gave the release"
    assert not any(said.full for said in world.hub.check_ins)


def test_a_hub_that_lost_its_reports_gets_the_full_list_once() -> None:
    world = with_release_1(*MODELS)
    world.hub.reports.clear()
    world.hub.check_ins.clear()
    world.hub.offers.clear()
    world.run(lambda world: len(world.hub.check_ins) == 4)
    assert [said.full for said in world.hub.check_ins] == [False, True, False, False]
    assert [len(said.models) for said in world.hub.check_ins] == [0, 3, 0, 0]
    assert world.hub.runs("gate") == "1"


def test_a_hub_that_asks_for_the_list_cancels_no_attempt() -> None:
    world = with_release_1("detector", "digits")
    world.offer("2", model="digits")
    world.run(until("digits", Stage.FETCHING), drain=False)
    assert (attempt := world.state.models["digits"].attempt) is not None
    world.hub.reports.clear()
    world.run(at_rest)
    assert world.told("ro-2") == ["trial_started", "confirmed"]
    assert world.state.attempts == attempt.number  # the same attempt went on


def test_a_change_is_repeated_until_it_is_answered() -> None:
    world = with_release_1("detector", "digits")
    take, failures = world.hub.take, 3

    def down(said: CheckIn) -> CheckInAnswer:
        nonlocal failures
        if said.models and failures:
            failures -= 1
            assert [one.model for one in said.models] == ["digits"]
            raise world.no_answer()
        return take(said)

    world.hub.take = down  # type: ignore[method-assign] - planted
    world.offer("2")
    world.run(at_rest)
    assert (failures, world.hub.runs("digits"), world.hub.wanted) == (0, "2", [])


def test_an_offer_whose_model_is_no_valid_name_is_ignored() -> None:
    world = with_release_1("digits")
    bad = world.hub.offers["digits"]
    world.hub.offers["../digits"] = Offer(
        rollout="ro-bad", action="install", model="../digits", release="2",
        manifest_sha256=bad.manifest_sha256, confirm_after_s=1.0,
    )  # fmt: skip
    world.hub.check_ins.clear()
    world.run(lambda world: len(world.hub.check_ins) == 2)
    assert list(world.state.models) == ["digits"]


def test_a_device_refuses_more_models_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.agent.before_trial.MODELS_PER_DEVICE", 2)
    world = with_release_1("detector", "digits")
    world.offer("1", model="gate")
    world.run(lambda world: "refused" in world.told("ro-gate-1"))
    world.run(at_rest)
    (refused,) = [one for one in world.hub.outcomes.values() if one.kind == "refused"]
    assert refused.reason == "does_not_fit"
    assert (world.served("detector"), world.served("digits")) == ("1", "1")


@pytest.mark.parametrize("when", list(When))
def test_a_first_release_that_fails_beside_another_model_leaves_the_other_alone(when: When) -> None:
    world = with_release_1("digits")
    world.offer("sick", model="detector")
    world.storage.cut_at, world.storage.cut_when = len(world.storage.operations) + 30, when
    try:
        world.run(at_rest)
    except PowerCut:
        started(world)
        world.run(at_rest)
    assert (world.served("digits"), world.served("detector")) == ("1", None)
    assert world.hub.runs("detector") is None
    assert content(world.storage.files, POINTER) == b"digits a\n"


def test_a_quality_window_of_a_model_ends_at_the_switch_of_another() -> None:
    world = with_release_1("detector", "digits")
    world.hub.offers.clear()
    world.requests = {"detector": limits.WINDOW_LEAST_REQUESTS + 1}
    world.run(lambda world: "detector" in world.served_requests)
    world.run(lambda world: bool(world.state.soft.models["detector"].windows.filling))
    world.offer("2")
    world.run(until("digits", Stage.ACTIVATING), drain=False)
    before = world.state.soft.models["detector"].windows.filling
    assert before is not None
    assert before.requests
    world.requests = {}
    world.run(until("digits", Stage.WATCHING), drain=False)
    windows = world.state.soft.models["detector"].windows
    assert windows.full is not None
    assert windows.filling is not None
    assert (windows.full.until, windows.filling.requests) == (world.now, 0)
    assert windows.filling.switched == Switch(model="digits", release="2")
    watch = world.state.soft.models["digits"].watch
    assert watch is not None
    assert [one.start.model for one in watch.neighbours] == ["detector"]
