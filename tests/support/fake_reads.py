"""A hub as the page sees it, without a hub: views that a test sets, and a rollout it can play.

Run it to look at the pages: ``python -m support.fake_reads 8499`` with ``tests`` on the path.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import msgspec
import uvicorn
from starlette.applications import Starlette

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.operator import (
    AuditEntry,
    AuditPage,
    DevicePage,
    DeviceView,
    FleetView,
    HistoryPoint,
    Models,
    ModelView,
    ReleaseView,
    RolloutHistory,
    Rollouts,
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
    Cohort,
    Command,
    Evidence,
    GateSpec,
    Judgement,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    Verdict,
    WaveView,
)
from edgefleet.protocol.why import Wait, WaitCode, WaitReport
from edgefleet.web.routes import routes_for

TOKEN = "operator-token-of-the-fake"
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
    """Waves before ``index`` passed, ``index`` open since, the others ahead."""
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
    """A rollout of release 3 that stands in ``status``, with everything that belongs to it."""
    name = rollout_id or f"ro-{status.value}"
    start = now - 240.0
    running = Evidence(
        cut=101, offered=9, in_trial=14, healthy=71, failed=1, offline=5, deferred=1, exposed=86,
        reasons={"golden_failed": 1}, canary=_GOOD, control=_CONTROL,
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
        "71 healthy, 1 failed: it passes once it stood for 60 s.",
        running,
        now - 1,
    )
    wait = Wait(
        code=WaitCode.SOAK,
        text="The gate passes; the wave must stand 60 s.",
        since=now - 22,
        until=now + 38,
    )
    offline = Wait(
        code=WaitCode.OFFLINE, text="5 devices of the wave do not check in.", since=now - 130, devices=5,
        first=("lyon-0003", "lyon-0117", "oslo-0042"),
    )  # fmt: skip
    base = RolloutView(
        id=name, model="digits", release="3", previous="2", selector="site in (lyon,oslo)", status=status,
        reason="", text="", generation=7, created_at=start - 30, started_at=start, ended_at=None, wave=1,
        waves=waves_up_to(1, start, looking), gate=GateSpec(soak_s=60), evidence=running, exposed=86,
        plan=RolloutSpec(model="digits", release="3", gate=GateSpec(soak_s=60)),
        why=report(f"rollout/{name}", ""),
    )  # fmt: skip

    def at(reason: str, text: str, *waits: Wait, **fields: object) -> RolloutView:
        why = report(f"rollout/{name}", text, *waits, at=now)
        return msgspec.structs.replace(base, reason=reason, text=text, why=why, **fields)

    match status:
        case Status.PLANNED:
            start_it = Wait(code=WaitCode.START, text="Somebody must start it.", since=now - 30)
            return at("planned", "Planned for 1,003 devices; nobody has it yet.", start_it, started_at=None,
                      wave=None, waves=waves_up_to(None, start), evidence=Evidence(), exposed=0)  # fmt: skip
        case Status.RUNNING:
            return at("soak", "The 10 % wave passes its gate and soaks.", wait, offline)
        case Status.PAUSED:
            paused = Wait(code=WaitCode.PAUSED, text="An operator paused it.", since=now - 300)
            return at("paused", "Paused in the 10 % wave; nobody new is offered it.", paused)
        case Status.HALTED:
            halted = Wait(
                code=WaitCode.HALTED, text="Somebody must revert it or leave it.", since=now - 60
            )
            return at("halted", "Halted by an operator: 86 devices keep it.", halted)
        case Status.REVERTING:
            back = Wait(code=WaitCode.REVERTING, text="18 devices still have to go back.", since=now - 40,
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
            return at("healthy", "Every reachable device runs it.", finished, wave=None, ended_at=now - 10,
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
                "9 of 9 devices would not activate it.",
                refused,
                now - 9,
            )
            finished = Wait(code=WaitCode.DONE, text="Nothing is waited for.")
            return at("refused_by_devices", "The devices refused it; nobody was exposed.", finished, wave=None,
                      ended_at=now - 9, waves=waves_up_to(0, start, no), evidence=refused, exposed=0)  # fmt: skip


def history_of(rollout: RolloutView, now: float, seconds: int = 300) -> RolloutHistory:
    """A history that ends where the rollout's evidence stands."""
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


class FakeReads:
    """Everything the page asks for. Tests set ``rollout_views``, ``device_views`` and play."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.operator_token = TOKEN
        self.rollout_views: dict[str, RolloutView] = {}
        self.device_views = [self._device(number) for number in range(120)]
        self.entries: list[AuditEntry] = []
        self.commands: list[tuple[str, Verb, Command, str]] = []
        self.refusal: OperatorError | None = None
        for status in (Status.COMPLETED, Status.REVERTED, Status.REFUSED):
            self.put(rollout_in(status, now=now))

    def put(self, rollout: RolloutView) -> None:
        self.rollout_views[rollout.id] = rollout
        self.log("gate", rollout.status.value, f"rollout/{rollout.id}", rollout.text)

    def log(self, actor: str, action: str, about: str, detail: str) -> None:
        number = len(self.entries) + 1
        entry = AuditEntry(
            id=number, at=self.now, actor=actor, action=action, about=about, detail=detail
        )
        self.entries.insert(0, entry)

    def play(self, rollout_id: str, healthy: int) -> None:
        """So many devices of the open wave have confirmed by now."""
        rollout = self.rollout_views[rollout_id]
        seen = msgspec.structs.replace(
            rollout.evidence,
            healthy=healthy,
            exposed=healthy,
            in_trial=0,
            offered=101 - healthy - 7,
        )
        text = f"{healthy} devices are healthy."
        why = msgspec.structs.replace(rollout.why, line=text)
        self.rollout_views[rollout_id] = msgspec.structs.replace(
            rollout, evidence=seen, exposed=healthy, text=text, why=why
        )

    def _device(self, number: int) -> DeviceView:
        site = ("lyon", "oslo", "turin")[number % 3]
        online = number % 11 != 5
        taken = number % 9 == 0
        return DeviceView(
            name=f"{site}-{number:04}", profile=("raspberry_pi", "jetson_nano", "coral_tpu")[number % 3],
            labels={"site": site, "tier": "gold" if number % 2 else "silver"}, agent_version="0.1.0",
            enrolled_at=self.now - 90_000, last_seen=self.now - (7 if online else 4000), online=online,
            phase="trial" if taken and online else "idle", model="digits", release="3" if taken else "2",
            desired="3" if number % 4 == 0 else "2", rollout="ro-running" if taken else None,
            line="It tries release 3 since 12 s." if taken else "Its position lies beyond the open wave's cut.",
        )  # fmt: skip

    def fleet(self) -> FleetView:
        open_ = {Status.RUNNING, Status.PAUSED, Status.HALTED, Status.REVERTING, Status.PLANNED}
        return FleetView(
            at=self.now, total=POPULATION, online=967,
            by_profile={"raspberry_pi": 402, "jetson_nano": 301, "coral_tpu": 200, "generic_x86": 100},
            on_release={"digits": {"1": 31, "2": 850, "3": 86}},
            by_phase={"idle": 930, "fetching": 9, "proving": 6, "trial": 14, "reverting": 8},
            rollouts_open=tuple(key for key, view in self.rollout_views.items() if view.status in open_),
        )  # fmt: skip

    def models(self) -> Models:
        return Models(
            models=(
                ModelView(
                    name="digits", releases=("3", "2", "1"), devices={"1": 31, "2": 850, "3": 86}
                ),
            )
        )

    def model(self, name: str) -> ModelView:
        if name != "digits":
            raise OperatorError("not_found", f"There is no model {name!r}.")
        return self.models().models[0]

    def release(self, model: str, release: str) -> ReleaseView:
        self.model(model)
        if release not in {"1", "2", "3"}:
            raise OperatorError("not_found", f"There is no release {release!r}.")
        return release_view(release, self.now)

    def rollouts(self) -> Rollouts:
        return Rollouts(rollouts=tuple(reversed(self.rollout_views.values())))

    def rollout(self, rollout_id: str) -> RolloutView:
        if rollout_id not in self.rollout_views:
            raise OperatorError("not_found", f"There is no rollout {rollout_id!r}.")
        return self.rollout_views[rollout_id]

    def history(self, rollout_id: str) -> RolloutHistory:
        return history_of(self.rollout(rollout_id), self.now)

    def devices(self, after: str | None, limit: int, selector: str) -> DevicePage:
        if selector and "=" not in selector:
            raise OperatorError(
                "selector_key_unknown", f"No device carries {selector!r}.", field="selector"
            )
        key, _, value = selector.partition("=")
        found = [
            view for view in self.device_views if not selector or view.labels.get(key) == value
        ]
        names = [view.name for view in found]
        first = names.index(after) + 1 if after else 0
        page = found[first : first + limit]
        return DevicePage(
            devices=tuple(page), next=page[-1].name if first + limit < len(found) else None
        )

    def device(self, name: str) -> DeviceView:
        for view in self.device_views:
            if view.name == name:
                return view
        raise OperatorError("not_found", f"There is no device {name!r}.")

    def why_device(self, name: str) -> WaitReport:
        wait = Wait(
            code=WaitCode.NEXT_WAVE,
            text="Its position lies beyond the open wave's cut.",
            since=self.now - 90,
        )
        return report(f"device/{name}", self.device(name).line, wait)

    def why_rollout(self, rollout_id: str) -> WaitReport:
        return self.rollout(rollout_id).why

    def why_release(self, model: str, release: str) -> WaitReport:
        wait = Wait(
            code=WaitCode.SOAK, text="Its rollout soaks.", since=self.now - 22, until=self.now + 38
        )
        return report(f"release/{model}/{release}", "It is being rolled out.", wait)

    def audit(self, before: int | None, limit: int) -> AuditPage:
        older = [entry for entry in self.entries if before is None or entry.id < before]
        page = tuple(older[:limit])
        return AuditPage(entries=page, next=page[-1].id if len(older) > limit else None)

    async def plan(self, spec: RolloutSpec, actor: str) -> RolloutView:
        raise OperatorError("fleet_empty", "The fake plans nothing.")

    async def command(
        self, rollout_id: str, verb: Verb, command: Command, actor: str
    ) -> RolloutView:
        if self.refusal is not None:
            raise self.refusal
        self.rollout(rollout_id)
        self.commands.append((rollout_id, verb, command, actor))
        after = {
            Verb.START: Status.RUNNING, Verb.PAUSE: Status.PAUSED, Verb.RESUME: Status.RUNNING,
            Verb.ADVANCE: Status.RUNNING, Verb.HALT: Status.HALTED, Verb.REVERT: Status.REVERTING,
        }[verb]  # fmt: skip
        self.put(rollout_in(after, now=self.now, rollout_id=rollout_id))
        self.log(actor, verb.value, f"rollout/{rollout_id}", command.note)
        return self.rollout_views[rollout_id]


@contextlib.asynccontextmanager
async def page_server(
    reads: FakeReads, port: int = 0, interval_s: float = 0.05
) -> AsyncIterator[int]:
    """The page over ``reads`` on a loopback port, which is yielded; stopped on the way out."""
    app = Starlette(routes=routes_for(reads, interval_s=interval_s))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        running = asyncio.create_task(server.serve())
        stack.callback(running.cancel)
        while not server.started:
            if running.done():
                await running
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        await running


async def _look(port: int) -> None:
    reads = FakeReads(time.time())
    for status in (Status.PLANNED, Status.PAUSED, Status.HALTED, Status.REVERTING, Status.RUNNING):
        reads.put(rollout_in(status, now=reads.now))
    async with page_server(reads, port, interval_s=1.0):
        print(f"http://127.0.0.1:{port}/?token={TOKEN}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_look(int(sys.argv[1])))
