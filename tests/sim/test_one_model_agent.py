"""The simulated agent of protocol 2 names one model, and reads one offer."""

import pytest
from msgspec.structs import replace

from edgefleet.agent.state import AgentState, Attempt, ModelState, Slot
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import (
    CheckIn,
    CheckInAnswer,
    Facts,
    Offer,
    OutcomeKind,
    Phase,
    Telemetry,
)
from edgefleet.protocol.version import ONE_MODEL, PROTOCOL
from edgefleet.protocol.wire import decode, encode
from edgefleet.sim.virtual import releases
from edgefleet.sim.virtual.one_model_agent import from_protocol_2, in_protocol_2
from edgefleet.sim.virtual.scenario import NEW, OLD, Scenario
from support.plans import outcome

PROFILE = "generic_x86"
FACTS = Facts(profile=PROFILE, agent_version="1")
TELEMETRY = Telemetry(
    release=OLD,
    requests=1,
    errors=0,
    confidence_sum=0.0,
    confidence_count=0,
    latency_us_p50=1,
    latency_us_p95=1,
    memory_mib=1,
    model="digits",
)


def on(release: str, stage: Stage = Stage.IDLE, model: str = "digits") -> ModelState:
    """A model of which ``release`` is confirmed. In another stage it has an attempt at release 2."""
    made, sha256 = releases.manifest(model, release, Scenario(title=""), 0.0)
    installed = releases.installed_release(made, sha256, PROFILE)
    mine = ModelState(active="a", a=Slot(installed=installed, proved=True, confirmed=True))
    if stage is Stage.IDLE:
        return mine
    attempt = Attempt(
        number=0,
        rollout="ro-1",
        action="install",
        model=model,
        release=NEW,
        manifest_sha256="0" * 64,
        confirm_after_s=1.0,
        max_attempts=2,
        slot="b",
        leaving=release,
        switched=stage is Stage.WATCHING,
    )
    return replace(mine, stage=stage, attempt=attempt)


def sent(**models: ModelState) -> CheckIn:
    """The check-in of an agent of protocol 2 with these models."""
    check_in = CheckIn(protocol=PROTOCOL, seq=7, digest=5, full=True, facts=FACTS)
    made = in_protocol_2(check_in, AgentState(models=models))
    assert decode(encode(made), CheckIn) == made
    return made


@pytest.mark.parametrize(
    ("mine", "release", "phase"),
    [
        (on(OLD), OLD, Phase.IDLE),
        (on(OLD, Stage.FETCHING), OLD, Phase.FETCHING),
        (on(OLD, Stage.WATCHING), NEW, Phase.TRIAL),
    ],
)
def test_a_check_in_names_the_one_model_each_time(
    mine: ModelState, release: str, phase: Phase
) -> None:
    made = sent(digits=mine)
    assert (made.protocol, made.seq, made.facts) == (ONE_MODEL, 7, FACTS)
    assert (made.model, made.release, made.phase) == ("digits", release, phase)
    assert (made.models, made.full, made.digest) == ((), False, 0), "fields of protocol 3"


def test_a_device_without_a_model_names_none() -> None:
    made = sent()
    assert (made.model, made.release, made.phase) == (None, None, Phase.IDLE)


def test_a_first_release_has_a_phase_and_no_name_before_its_trial() -> None:
    first = replace(on(OLD, Stage.PROVING), active=None, a=Slot())
    made = sent(digits=first)
    assert (made.model, made.release, made.phase) == (None, None, Phase.PROVING)


def test_the_model_with_an_attempt_is_named_before_the_first() -> None:
    made = sent(detector=on(OLD, model="detector"), digits=on(OLD, Stage.PROVING))
    assert (made.model, made.phase) == ("digits", Phase.PROVING)
    made = sent(detector=on(OLD, model="detector"), digits=on(NEW))
    assert (made.model, made.release) == ("detector", OLD)


def test_reports_and_telemetry_go_on_without_the_name_of_the_model() -> None:
    started = outcome("ro-1", NEW, OutcomeKind.TRIAL_STARTED)
    check_in = CheckIn(protocol=PROTOCOL, seq=1, outcomes=(started,), telemetry=TELEMETRY)
    made = in_protocol_2(check_in, AgentState(models={"digits": on(OLD)}))
    assert made.outcomes == (started,)
    assert made.telemetry == replace(TELEMETRY, model=None)


def test_the_one_offer_is_read_as_the_only_one() -> None:
    offer = Offer(
        rollout="ro-1",
        action="install",
        model="digits",
        release=NEW,
        manifest_sha256="0" * 64,
        confirm_after_s=1.0,
    )
    answer = CheckInAnswer(interval_s=60.0, acked=("x",), offer=offer)
    assert from_protocol_2(answer) == CheckInAnswer(interval_s=60.0, acked=("x",), offers=(offer,))
    nothing = CheckInAnswer(interval_s=60.0)
    assert from_protocol_2(nothing) == nothing
