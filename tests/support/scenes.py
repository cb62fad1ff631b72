"""Rollouts, histories and releases to be shown on a page."""

import msgspec

from edgefleet.protocol.operator import (
    DeviceAttempt,
    DeviceModel,
    DeviceView,
    HistoryPoint,
    ReleaseView,
    RolloutHistory,
)
from edgefleet.protocol.release import (
    Artifact,
    Golden,
    Quality,
    ReleaseManifest,
    TensorSpec,
    Variant,
)
from edgefleet.protocol.rollout import (
    BakeShare,
    BakeView,
    Cohort,
    Difference,
    Evidence,
    GateSpec,
    Judgement,
    LimitCounts,
    Rate,
    RolloutSpec,
    RolloutView,
    Status,
    Verdict,
    WaveView,
)
from edgefleet.protocol.why import Wait, WaitCode, WaitReport

POPULATION = 1003
CUTS = ((1.0, 11), (10.0, 101), (100.0, POPULATION))
NOW = 1_790_000_000.0

_GOOD = Cohort(devices=11, requests=18_420, errors=7, confidence_mean=0.934, latency_us_p95=640)
_BAD = Cohort(devices=58, requests=9_310, errors=24, confidence_mean=0.712, latency_us_p95=655)
_CONTROL = Cohort(
    devices=902, requests=912_000, errors=301, confidence_mean=0.941, latency_us_p95=618
)


def judgement(verdict: Verdict, reason: str, text: str, evidence: Evidence, at: float) -> Judgement:
    return Judgement(verdict=verdict, reason=reason, text=text, at=at, evidence=evidence)


def waves_up_to(
    index: int | None, start: float, last: Judgement | None = None
) -> tuple[WaveView, ...]:
    """Waves before ``index`` have passed, ``index`` is open, later waves are not."""
    waves = []
    for number, (percent, cut) in enumerate(CUTS):
        if index is None or number > index:
            waves.append(WaveView(percent=percent))
            continue
        passed = number < index
        seen = Evidence(
            cut=cut, healthy=cut - 1, offline=1, exposed=cut - 1, canary=_GOOD, control=_CONTROL
        )
        at = start + 90.0 * (number + 1)
        good = judgement(
            Verdict.PASS, "healthy", f"{cut - 1} of {cut} devices are healthy for 60 s.", seen, at
        )
        waves.append(
            WaveView(
                percent=percent,
                cut=cut,
                threshold="ffffffffffffffff"
                if percent == 100
                else f"{int(percent / 100 * 2**64):016x}",
                population=POPULATION,
                opened_at=start + 90.0 * number,
                closed_at=at if passed else None,
                exposed=cut - 1,
                judgement=good if passed else last,
            )
        )
    return tuple(waves)


def report(about: str, line: str, *waits: Wait, at: float = NOW) -> WaitReport:
    return WaitReport(about=about, at=at, line=line, waits=waits)


def rollout_in(status: Status, *, now: float = NOW, rollout_id: str | None = None) -> RolloutView:
    """A complete view of a rollout of release 3 with this status."""
    name = rollout_id or f"ro-{status.value}"
    start = now - 240.0
    running = Evidence(
        cut=101, offered=9, in_trial=14, healthy=71, failed=1, offline=5, deferred=1, exposed=86,
        reasons={"golden_failed": 1}, canary=_GOOD, control=_CONTROL,
        errors=Rate(bad=1, size=72, allowed=0.05, low=0.0004, high=0.081, e_value=0.31),
        silence=Rate(bad=0, size=72, allowed=0.01, low=0.0, high=0.052, e_value=0.62),
        quality=(
            Difference(metric="latency", pairs=64, mean=0.031, low=-0.02, high=0.09, allowed=0.14, e_value=0.08),
            Difference(metric="confidence", pairs=64, mean=0.007, low=-0.01, high=0.03, allowed=0.1, e_value=0.02),
        ),
        limits=LimitCounts(devices=70),
    )  # fmt: skip
    fallen = Evidence(
        cut=101, offered=4, healthy=12, in_trial=6, failed=22, reverted=41, refused=3, offline=12, deferred=1,
        silent=2, exposed=81, canary=_BAD, control=_CONTROL,
        reasons={"confidence_drop": 17, "serving_crashed": 3, "trial_interrupted": 2, "golden_failed": 3},
    )  # fmt: skip
    fail = judgement(
        Verdict.FAIL, "error_rate",
        "22 of 34 finished devices failed: above 5 % with 95 % confidence (at least 49 %).", fallen, now - 40,
    )  # fmt: skip
    looking = judgement(
        Verdict.INCONCLUSIVE,
        "soak",
        "1 of 72 devices failed. The wave must pass for 600 s.",
        running,
        now - 1,
    )
    wait = Wait(
        code=WaitCode.SOAK,
        text="The gate passes; the wave must pass for 10 min.",
        since=now - 22,
        until=now + 578,
    )
    offline = Wait(
        code=WaitCode.OFFLINE, text="5 devices of the wave do not check in.", since=now - 130, devices=5,
        first=("lyon-0003", "lyon-0117", "oslo-0042"),
    )  # fmt: skip
    base = RolloutView(
        id=name, model="digits", release="3", previous="2", selector="site in (lyon,oslo)", status=status,
        reason="", text="", generation=7, created_at=start - 30, started_at=start, ended_at=None, wave=1,
        waves=waves_up_to(1, start, looking), gate=GateSpec(soak_s=60), evidence=running, exposed=86,
        plan=RolloutSpec(model="digits", release="3", gate=GateSpec(soak_s=60)), allowed=72,
        had_model=POPULATION, replaced={"1": 31, "2": 972},
        why=report(f"rollout/{name}", ""),
    )  # fmt: skip

    def at(reason: str, text: str, *waits: Wait, **fields: object) -> RolloutView:
        why = report(f"rollout/{name}", text, *waits, at=now)
        return msgspec.structs.replace(base, reason=reason, text=text, why=why, **fields)

    match status:
        case Status.PLANNED:
            start_it = Wait(code=WaitCode.START, text="An operator must start it.", since=now - 30)
            return at("planned", "Planned for 1,003 devices; no device has it yet.", start_it, started_at=None,
                      wave=None, waves=waves_up_to(None, start), evidence=Evidence(), exposed=0)  # fmt: skip
        case Status.RUNNING:
            return at("soak", "The 10 % wave passes its gate and soaks.", wait, offline)
        case Status.PAUSED:
            paused = Wait(code=WaitCode.PAUSED, text="An operator paused it.", since=now - 300)
            return at("paused", "Paused in the 10 % wave; no further device is offered it.", paused)
        case Status.HALTED:
            halted = Wait(
                code=WaitCode.HALTED, text="An operator must revert it or keep it.", since=now - 60
            )
            return at("halted", "Halted by an operator: 86 devices keep it.", halted)
        case Status.REVERTING:
            back = Wait(code=WaitCode.REVERTING, text="Online devices that still run the release: 18.", since=now - 40,
                        devices=18, first=("oslo-0007", "oslo-0009"))  # fmt: skip
            return at(
                "error_rate",
                fail.text,
                back,
                waves=waves_up_to(1, start, fail),
                evidence=fallen,
                exposed=81,
            )
        case Status.COMPLETED:
            done = Evidence(cut=POPULATION, healthy=984, failed=4, offline=15, exposed=988,
                            reasons={"trial_interrupted": 4}, canary=_GOOD)  # fmt: skip
            good = judgement(
                Verdict.PASS, "healthy", "984 healthy, 4 failed: 0.4 %, limit 5 %.", done, now - 10
            )
            finished = Wait(code=WaitCode.DONE, text="Nothing is waited for.")
            bake = BakeView(until=now + 86_390, ended_at=None, end=None, holdback=10, windows=31, alert=None, shares=(
                BakeShare(metric="request_errors", share=0.0021, control=0.0, allowed=0.05, devices=993, e_value=0.02),
            ))  # fmt: skip
            return at("healthy", "Every reachable device runs it.", finished, wave=None, ended_at=now - 10, bake=bake,
                      waves=waves_up_to(2, start, good), evidence=done, exposed=988)  # fmt: skip
        case Status.REVERTED:
            gone = msgspec.structs.replace(fallen, healthy=0, in_trial=0, reverted=59)
            finished = Wait(code=WaitCode.DONE, text="Nothing is waited for.")
            return at("error_rate", f"{fail.text} All 81 are back on 2.", finished, wave=None, ended_at=now - 5,
                      waves=waves_up_to(1, start, fail), evidence=gone, exposed=81)  # fmt: skip
        case Status.REFUSED:
            refused = Evidence(
                cut=11, refused=9, offline=2, reasons={"golden_failed": 9}, control=_CONTROL
            )
            no = judgement(
                Verdict.FAIL,
                "refused_by_devices",
                "9 of 9 devices refused the release; no device activated it.",
                refused,
                now - 9,
            )
            finished = Wait(code=WaitCode.DONE, text="Nothing is waited for.")
            return at("refused_by_devices", "The devices refused it; no device was exposed.", finished, wave=None,
                      ended_at=now - 9, waves=waves_up_to(0, start, no), evidence=refused, exposed=0)  # fmt: skip


def two_models() -> DeviceView:
    """A device that runs digits 3 and waits to start detector 2."""
    return DeviceView(
        name="lyon-0900", profile="jetson_nano", labels={"site": "lyon"}, agent_version="0.1.0",
        enrolled_at=NOW - 90_000, last_seen=NOW - 7, online=True,
        models=(
            DeviceModel(
                model="detector", release=None, phase="staged", desired="2", rollout="ro-detector",
                line=_WAITS.text,
            ),
            DeviceModel(
                model="digits", release="3", phase="trial", desired="3", rollout="ro-running",
                memory_limit_mib=512, line=_TRIES.text,
            ),
        ),
        line=f"detector: {_WAITS.text}",
    )  # fmt: skip


def two_reasons() -> WaitReport:
    """The reasons of ``two_models``."""
    device = two_models()
    return report(f"device/{device.name}", device.line, _WAITS, _TRIES)


_WAITS = Wait(
    code=WaitCode.OTHER_TRIAL,
    text="This device has downloaded the release and waits to start release 2: Release 3 of digits "
    "is in trial.",
    since=NOW - 30,
    model="detector",
)
_TRIES = Wait(
    code=WaitCode.TRIAL,
    text="Release 3 is in trial on this device, which confirms after 60 s of good health.",
    model="digits",
)


def history_of(rollout: RolloutView, now: float, seconds: int = 300) -> RolloutHistory:
    """A history that ends with the counts of the rollout's evidence."""
    opened = [wave.opened_at for wave in rollout.waves if wave.opened_at is not None]
    points = []
    for second in range(0, seconds + 1, 5):
        at = now - seconds + second
        since = [at - moment for moment in opened if at >= moment]
        sizes = [cut - before for (_, cut), before in zip(CUTS, (0, 11, 101), strict=True)]
        taken = sum(
            round(size * min(1.0, age / 70)) for size, age in zip(sizes, since, strict=False)
        )
        if rollout.status in {Status.REVERTING, Status.REVERTED} and at > now - 40:
            taken = round(taken * max(0.0, (now - at) / 60))
        taken = 0 if rollout.status is Status.REFUSED else round(taken * 0.96)
        points.append(HistoryPoint(at=at, on_release={"3": taken, "2": 936 - taken, "1": 31}))
    return RolloutHistory(rollout=rollout.id, points=tuple(points))


def release_view(release: str, now: float) -> ReleaseView:
    def tensor(name: str, width: int) -> tuple[TensorSpec, ...]:
        return (TensorSpec(name=name, datatype="FP32", shape=(-1, width)),)

    variants = tuple(
        Variant(
            profile=profile, runtime="onnx", precision=precision,
            artifact=Artifact(sha256=f"{number}{'ab' * 31}f", size_bytes=size), inputs=tensor("pixels", 64),
            outputs=tensor("probabilities", 10), max_batch=batch, memory_limit_mib=memory,
        )
        for number, (profile, precision, size, batch, memory) in enumerate(
            [("generic_x86", "fp32", 41_312, 8, 2048), ("jetson_nano", "fp16", 21_004, 4, 3072),
             ("raspberry_pi", "int8", 11_871, 1, 1024), ("coral_tpu", "int8", 11_871, 1, 512)]
        )
    )  # fmt: skip
    manifest = ReleaseManifest(
        model="digits", release=release, variants=variants, created_at=now - 9000, notes="Handwritten digits.",
        golden=Golden(artifact=Artifact(sha256="c" * 64, size_bytes=52_100), cases=200, min_accuracy=0.94,
                      min_agreement=0.99),
        quality=Quality(output="probabilities", scores="probabilities"),
        parent=str(int(release) - 1) if release.isdigit() and release > "1" else None,
    )  # fmt: skip
    return ReleaseView(
        manifest=manifest,
        manifest_sha256="d" * 64,
        signed_by=("ab12" * 16,),
        published_at=now - 8000,
        devices=86,
    )


ATTEMPTS = (
    DeviceAttempt(
        rollout="ro-reverted", model="digits", release="3", attempt=2, kind="trial_failed",
        reason="confidence_drop", cause="confidence dropped",
        detail="Mean confidence fell from 0.941 to 0.712 over 50 scores (limit 0.841).",
        began_at=NOW - 75, at=NOW - 40, duration_s=33.0,
    ),
    DeviceAttempt(
        rollout="ro-completed", model="digits", release="2", attempt=1, kind="confirmed",
        began_at=NOW - 9060, at=NOW - 9000, duration_s=60.0,
    ),
)  # fmt: skip
