"""The shadow phase in the core: its verdicts, its bounds, restarts in it, and its place in a step."""

import msgspec
import pytest

from edgefleet.agent.arbiter import Act, Member, Room, Unit, decide
from edgefleet.agent.shadow import Bad, Over, judge
from edgefleet.agent.state import Attempt, Mark, ShadowWatch
from edgefleet.agent.table import Stage
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats, ModelStatus
from edgefleet.protocol.shadow import Shadow, ShadowStatus
from support.agent_world import serving_model
from support.device_world import SHADOW, World, fork
from support.memory_storage import When
from support.power_cuts import live, on_release_1, settled

PLAN = Shadow(share=0.05, samples=100, for_s=600.0, max_disagreement=0.2)
QUALITY = Quality(output="y", scores="probabilities", max_confidence_drop=0.1, min_requests=20)
ATTEMPT = Attempt(
    number=1, rollout="ro-2", action="install", model="digits", release="2",
    manifest_sha256="0" * 64, confirm_after_s=10.0, max_attempts=2, slot="b", leaving="1",
    shadow=PLAN, max_cpu_increase=0.5,
)  # fmt: skip
START = Mark(pid=100, model="digits", release="1", stats=LiveStats())
WATCH = ShadowWatch(since=1000.0, start=START)


def own(**measured: object) -> ModelStatus:
    """The active release with a shadow that measured this."""
    fields = {"release": "2", "artifact_sha256": "0" * 64, "ready": True, "asked": 2000}
    shadow = ShadowStatus(**(fields | measured))  # type: ignore[arg-type] - fields by name
    active = serving_model("1", requests=2000, cpu_s=2000 * 500e-6)
    return msgspec.structs.replace(active, shadow=shadow)


def judged(**measured: object) -> Over | Bad | None:
    now = measured.pop("now", 1010.0)
    assert isinstance(now, float)
    return judge(ATTEMPT, QUALITY, WATCH, own(**measured), now)


GOOD = {
    "samples": 100, "disagreement": 3.0, "confidence_count": 100, "confidence_before_sum": 95.0,
    "confidence_sum": 94.0, "cpu_s": 100 * 510e-6, "latency_us_p95": 2100,
}  # fmt: skip


def test_a_candidate_that_agrees_passes_and_says_what_was_measured() -> None:
    over = judged(**GOOD)
    assert over == Over(
        "shadow_passed",
        "Shadow: 100 requests of 2000 answered by both releases, 0 failed, agreement 97.0%, "
        "confidence 0.950 -> 0.940, CPU 510 us, p95 2.1 ms.",
    )
    assert judged(**GOOD | {"samples": 99}) is None, "the phase goes on"


@pytest.mark.parametrize(
    ("measured", "reason", "detail"),
    [
        (
            {"samples": 20, "errors": 20, "error_example": "NaN"},
            "inference_errors",
            ("In the shadow phase 20 of 20 requests failed; 5% are allowed. The active release "
            "answered them: NaN"),
        ),
        (
            {"samples": 30, "disagreement": 28.0, "difference": "case 0 of y is 1 instead of 2"},
            "answers_differ",
            ("In the shadow phase the agreement with the active release fell from 100 % to 6.7% "
            "over 30 requests (limit 80.0%). Example: case 0 of y is 1 instead of 2."),
        ),
        (
            GOOD | {"disagreement": 21.0},
            "answers_differ",
            ("In the shadow phase the agreement with the active release fell from 100 % to 79.0% "
            "over 100 requests (limit 80.0%)."),
        ),
        (
            {"samples": 25, "confidence_count": 25, "confidence_before_sum": 24.0,
             "confidence_sum": 10.0},
            "confidence_drop",
            ("In the shadow phase: Mean confidence fell from 0.960 to 0.400 over 25 scores (limit "
            "0.860)."),
        ),
        (
            GOOD | {"cpu_s": 100 * 1600e-6},
            "cpu_increase",
            ("In the shadow phase: CPU time of a request rose from 500 us to 1600 us over 100 "
            "requests (limit 900 us). Of release 1: 2000 requests."),
        ),
        (
            {"ended": "The worker of release 2 crashed (SIGSEGV).", "cause": "serving_crashed",
             "fault": True},
            "serving_crashed",
            "In the shadow phase: The worker of release 2 crashed (SIGSEGV).",
        ),
    ],
)  # fmt: skip
def test_a_bad_candidate_is_refused_with_what_fell_from_to_and_limit(
    measured: dict[str, object], reason: str, detail: str
) -> None:
    assert judged(**measured) == Bad(reason, detail)


@pytest.mark.parametrize(
    "measured",
    [
        {"samples": 9, "errors": 9},  # too few to tell
        {"samples": 60, "errors": 4},
        {"samples": 60, "disagreement": 14.0},  # 23 %, but chance explains it so far
        {"samples": 19, "confidence_count": 19, "confidence_before_sum": 18.0},
    ],
)
def test_what_chance_explains_refuses_no_candidate(measured: dict[str, object]) -> None:
    assert judged(**measured) is None


def test_the_phase_ends_after_its_time_whatever_was_measured() -> None:
    assert judged(now=1599.0, samples=3) is None
    over = judged(now=1600.0, samples=3, skipped={"busy": 7})
    assert isinstance(over, Over)
    assert over.reason == "shadow_short"
    assert over.text.startswith("The shadow phase ended after 600 s. 3 requests of 2000 answered")
    assert over.text.endswith("; 100 were wanted. Skipped: busy 7.")
    nothing = judge(ATTEMPT, QUALITY, ShadowWatch(since=1000.0), None, 1600.0)
    assert nothing == Over(
        "shadow_short",
        "The shadow phase ended after 600 s. No request was compared, of 100: the trial goes on "
        "without its evidence.",
    )


def test_no_memory_for_the_shadow_is_no_fault_of_the_candidate() -> None:
    over = judged(ended="The load needs 90 MiB, and 12 MiB of the pod's 512 MiB are free.",
                  cause="memory_short")  # fmt: skip
    assert isinstance(over, Over)
    assert "90 MiB" in over.text
    assert "the trial goes on without its evidence" in over.text


def shadowed(release: str) -> World:
    world = on_release_1()
    world.activations.clear()
    world.shadow = SHADOW
    world.offer(release)
    return world


def test_a_bad_release_is_refused_before_it_is_ever_activated() -> None:
    world = shadowed("odd")
    live(world, [], power_lost=False)
    assert world.finals()["odd"] == ["refused"]
    (outcome,) = [one for one in world.hub.outcomes.values() if one.release == "odd"]
    assert outcome.reason == "answers_differ"
    assert (world.pointed(), world.served(), world.activations) == ("1", "1", [])
    assert world.serving is not None
    assert world.serving.models[0].shadow is None, "its memory is free again"


def test_a_good_release_starts_its_trial_with_the_evidence_of_its_shadow() -> None:
    world = shadowed("2")
    live(world, [], power_lost=False)
    assert world.finals()["2"] == ["confirmed"]
    (start,) = [
        one
        for one in world.hub.outcomes.values()
        if (one.release, one.kind) == ("2", "trial_started")
    ]
    assert start.reason == "shadow_passed"
    assert "agreement 100.0%" in start.detail
    assert world.shadows == ["2"]


def test_without_an_active_release_there_is_no_shadow() -> None:
    world = World()
    world.shadow = SHADOW
    world.offer("1")
    live(world, [], power_lost=False)
    assert (world.finals()["1"], world.shadows) == (["confirmed"], [])


def test_an_offer_that_is_gone_ends_the_shadow() -> None:
    world = shadowed("2")
    world.offer("2", shadow=Shadow(share=0.25, samples=1_000_000))
    world.boot()
    world.start()
    world.run(lambda world: world.stage is Stage.SHADOWING)
    world.hub.offers.clear()
    world.run(lambda world: world.stage is Stage.IDLE)
    assert "trial_started" not in world.told("ro-2")
    assert world.serving is not None
    assert world.serving.models[0].shadow is None


def test_a_release_that_takes_the_power_down_as_a_shadow_is_refused_after_its_attempts() -> None:
    world = shadowed("brick")
    assert live(world, [], power_lost=True) == 3
    assert (world.shadows, world.activations.count("brick")) == (["brick", "brick"], 0)
    assert world.finals()["brick"] == ["refused"]
    assert [one.reason for one in world.hub.outcomes.values()][-1] == "trial_interrupted"


def unit(rollout: str, *members: tuple[str, Stage, bool], returns: bool = False) -> Unit:
    """``members`` are model, stage, and whether it needs a shadow phase."""
    made = tuple(Member(model=name, stage=stage, needs_shadow=due) for name, stage, due in members)
    return Unit(rollout=rollout, members=made, returns=returns)


@pytest.mark.parametrize(
    ("units", "acts"),
    [
        ([unit("r", ("a", Stage.STAGED, True))], [(Act.SHADOW, "a")]),
        ([unit("r", ("a", Stage.SHADOWING, False))], []),
        (  # no model of the unit asks before all their shadow phases are over
            [unit("r", ("a", Stage.STAGED, True), ("b", Stage.STAGED, False))],
            [(Act.SHADOW, "a")],
        ),
        (  # one shadow at a time; a unit without one asks meanwhile
            [
                unit("r", ("a", Stage.SHADOWING, False)),
                unit("s", ("b", Stage.STAGED, True)),
                unit("t", ("c", Stage.STAGED, False)),
            ],
            [(Act.ASK, "c")],
        ),
        (  # no shadow beside a trial, or beside a model that goes back
            [unit("r", ("a", Stage.WATCHING, False)), unit("s", ("b", Stage.STAGED, True))],
            [],
        ),
        (
            [unit("r", ("a", Stage.WATCHING, False)), unit("s", ("b", Stage.SHADOWING, False))],
            [(Act.WAIT, "b")],
        ),
        (
            [
                unit("r", ("a", Stage.ACTIVATING, False), returns=True),
                unit("s", ("b", Stage.SHADOWING, False)),
            ],
            [(Act.WAIT, "b")],
        ),
    ],
)
def test_a_shadow_has_its_place_among_the_models(
    units: list[Unit], acts: list[tuple[Act, str]]
) -> None:
    assert list(decide(units, Room())) == acts


@pytest.mark.parametrize(("release", "heard"), [("2", ["confirmed"]), ("odd", ["refused"])])
@pytest.mark.parametrize("power_lost", [True, False])
def test_a_cut_anywhere_comes_to_the_right_end(
    release: str, heard: list[str], power_lost: bool
) -> None:
    start = shadowed(release)
    smooth = fork(start)
    live(smooth, [], power_lost=power_lost)
    count = len(smooth.storage.operations)
    for place in range(count):
        for when in When:
            world = fork(start)
            assert live(world, [(place, when)], power_lost=power_lost) == 2
            assert settled(world)
            assert world.finals()[release] == heard
            if release == "odd":
                assert world.activations.count("odd") == 0
                assert world.served() == "1"
    assert count >= 25
