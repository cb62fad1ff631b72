"""Releases, offers and a scripted driver for the agent's core."""

import msgspec

from edgefleet.agent.effect import (
    Apply,
    Effect,
    Fetch,
    FetchManifest,
    Probe,
    Prove,
    SendCheckIn,
    SetTimer,
)
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    Event,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    StagingFailed,
    TimerFired,
)
from edgefleet.agent.state import AgentState, ModelSoft, ModelState, SlotName, pointer, slot
from edgefleet.agent.step import step
from edgefleet.agent.table import Stage
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Facts, Offer
from edgefleet.protocol.release import (
    Artifact,
    Golden,
    Quality,
    ReleaseManifest,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.serving import LiveStats, ModelStatus, ProveResult, ServingStatus
from edgefleet.protocol.wire import encode

FACTS = Facts(profile="generic_x86", agent_version="0.1.0", runtimes=("onnx",), memory_mib=1024)
GOLDEN_BYTES = b"golden set"


def model_bytes(release: str, *, model: str = "digits") -> bytes:
    return f"{'model' if model == 'digits' else model} {release} ".encode() * 40


def golden_bytes(release: str, *, model: str = "digits") -> bytes:
    return GOLDEN_BYTES + (release if model == "digits" else f"{model} {release}").encode()


def manifest(
    release: str, *, model: str = "digits", profile: str = "generic_x86"
) -> ReleaseManifest:
    data = model_bytes(release, model=model)
    golden = golden_bytes(release, model=model)
    return ReleaseManifest(
        model=model,
        release=release,
        variants=(
            Variant(
                profile=profile,
                runtime="onnx",
                precision="fp32",
                artifact=Artifact(sha256=sha256_hex(data), size_bytes=len(data)),
                inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 64)),),
                outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 10)),),
                max_batch=8,
                memory_limit_mib=512,
            ),
        ),
        golden=Golden(
            artifact=Artifact(sha256=sha256_hex(golden), size_bytes=len(golden)),
            cases=4,
            min_accuracy=0.9,
            min_agreement=0.9,
        ),
        quality=Quality(output="y", scores="probabilities", min_requests=10),
        created_at=0.0,
    )


def manifest_sha256(release: str, *, model: str = "digits") -> str:
    return sha256_hex(encode(manifest(release, model=model)))


def offer(
    release: str,
    *,
    model: str = "digits",
    rollout: str | None = None,
    action: str = "install",
    **more: object,
) -> Offer:
    fields: dict[str, object] = {
        "rollout": rollout or (f"ro-{release}" if model == "digits" else f"ro-{model}-{release}"),
        "action": action,
        "model": model,
        "release": release,
        "manifest_sha256": manifest_sha256(release, model=model),
        "confirm_after_s": 10.0,
        **more,
    }
    return Offer(**fields)  # type: ignore[arg-type] - the fields are written out above


def serving(
    release: str, *, pid: int = 100, ready: bool = True, on_trial: bool = False, **stats: float
) -> ServingStatus:
    return ServingStatus(
        pid=pid, models=(serving_model(release, ready=ready, on_trial=on_trial, **stats),)
    )


def trial_crashed(incumbent: str, detail: str = "The worker crashed.") -> ServingStatus:
    """The worker of the trial has ended, and ``incumbent`` answers."""
    mine = msgspec.structs.replace(serving_model(incumbent), trial_ended=detail)
    return ServingStatus(pid=100, models=(mine,))


def serving_model(
    release: str,
    *,
    model: str = "digits",
    ready: bool = True,
    on_trial: bool = False,
    **stats: float,
) -> ModelStatus:
    return ModelStatus(
        model=model,
        release=release,
        artifact_sha256=sha256_hex(model_bytes(release, model=model)),
        ready=ready,
        on_trial=on_trial,
        stats=LiveStats(**stats),  # type: ignore[arg-type] - counters by name
    )


class Device:
    """The core, with a clock that the test moves and the effects of the last step."""

    def __init__(self, state: AgentState | None = None, *, now: float = 1000.0) -> None:
        self.state = state or AgentState(interval_s=60.0)
        self.now = now
        self.effects: tuple[Effect, ...] = ()

    @property
    def mine(self) -> ModelState:
        """The state of model digits."""
        return self.state.models.get("digits", ModelState())

    @property
    def soft(self) -> ModelSoft:
        """The part of the state of model digits that is not stored."""
        return self.state.soft.models.get("digits", ModelSoft())

    @property
    def stage(self) -> Stage:
        return self.mine.stage

    def hear(self, event: Event) -> tuple[Effect, ...]:
        self.state, self.effects = step(self.state, event, self.now)
        assert isinstance(self.effects[-1], SetTimer)
        assert sum(isinstance(one, SetTimer) for one in self.effects) == 1
        return self.effects

    def boot(
        self, *, whole: tuple[SlotName, ...] = ("a", "b"), **more: object
    ) -> tuple[Effect, ...]:
        fields: dict[str, object] = {
            "facts": FACTS,
            "whole": dict.fromkeys(self.state.models, whole),
            "pointer": pointer(self.state.models),
            "serving": None,
            "draw": 0.0,
            **more,
        }
        return self.hear(Booted(**fields))  # type: ignore[arg-type] - the fields are written out above

    def did(self, kind: type) -> Effect:
        """The one effect of that kind in the last step."""
        found = [one for one in self.effects if isinstance(one, kind)]
        assert len(found) == 1, f"{kind.__name__}: {self.effects}"
        return found[0]

    def job(self, kind: type[FetchManifest | Fetch | Prove | Apply]) -> int:
        found = self.did(kind)
        assert isinstance(found, FetchManifest | Fetch | Prove | Apply)
        return found.job

    def served(self) -> tuple[SlotName | None, SlotName | None]:
        """The confirmed slot and the slot in trial of the last step's Apply."""
        found = self.did(Apply)
        assert isinstance(found, Apply)
        (model,) = found.models
        return (
            model.confirmed.slot if model.confirmed else None,
            model.trial.slot if model.trial else None,
        )

    def kinds(self) -> tuple[str, ...]:
        """Names of the effects of the last step, without the timer."""
        return tuple(type(one).__name__ for one in self.effects[:-1] if not isinstance(one, Probe))

    def checked_in(self) -> CheckIn:
        sent = self.did(SendCheckIn)
        assert isinstance(sent, SendCheckIn)
        return sent.check_in

    def holds(self, name: SlotName) -> str | None:
        installed = slot(self.mine, name).installed
        return installed.release if installed else None


def any_event(state: AgentState) -> list[Event]:
    """Every event that can happen to the core in ``state``, and some that cannot."""
    mine = state.models.get("digits", ModelState())
    soft, attempt = state.soft, mine.attempt
    work = soft.models.get("digits", ModelSoft()).work or 0
    switch = soft.switch or 0
    seq = soft.sent.seq if soft.sent else 0
    release = attempt.release if attempt else "2"

    def answered(what: Offer | None) -> CheckInAnswered:
        return CheckInAnswered(
            seq=seq, answer=CheckInAnswer(interval_s=60, offers=(what,) if what else ()), draw=0.5
        )

    found: list[Event] = [
        Booted(facts=FACTS, whole={"digits": ("a", "b")}, pointer={}, serving=None, draw=0.1),
        Booted(facts=FACTS, whole={}, pointer={"digits": "a"}, serving=serving("1"), draw=0.1),
        TimerFired(draw=0.9),
        answered(None),
        answered(offer("2")),
        answered(offer("1", action="revert")),
        answered(offer("brick", action="revert")),
        CheckInFailed(seq=seq, code="unreachable", draw=0.5),
        CheckInFailed(seq=seq, code="checkin_replayed", next_seq=7, draw=0.5),
        ManifestOpened(
            model="digits", job=work, sha256=manifest_sha256(release), manifest=manifest(release)
        ),
        ManifestOpened(
            model="digits", job=work, sha256=manifest_sha256("1"), manifest=manifest("1")
        ),
        Fetched(model="digits", job=work),
        Proved(model="digits", job=work, result=ProveResult(passed=True)),
        Proved(model="digits", job=work, result=ProveResult(passed=False, reason="golden_failed")),
        Activated(job=switch, status=serving(release)),
        ActivationFailed(job=switch, reason="load_failed", detail="", draw=0.5),
        ServingProbed(status=None, alive=False, draw=0.5),
        ServingProbed(status=None, alive=True, draw=0.5),
        ServingProbed(status=serving(release), alive=True, draw=0.5),
        ServingProbed(status=serving("other", pid=7), alive=True, draw=0.5),
        ServingProbed(status=trial_crashed("1"), alive=True, draw=0.5),
        ServingProbed(status=None, alive=False, draw=0.5, ran=("digits", "other")),
    ]
    codes = ("disk_full", "unreachable", "digest_mismatch", "runtime_missing", "of_tomorrow")
    found += [
        StagingFailed(model="digits", job=work, code=code, detail="", draw=0.5) for code in codes
    ]
    return found
