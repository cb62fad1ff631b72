"""One real device with the three models of the examples, at a real hub, and a client for each model."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgefleet.agent.state import AgentState, slot
from edgefleet.base.clock import SystemClock
from edgefleet.client.watch import Observed, watch
from edgefleet.examples import FOLDER
from edgefleet.optimize.release_folder import build_release
from edgefleet.protocol.operator import ClaimRequest, DeviceAttempt, TrustKey, Unquarantine
from edgefleet.protocol.rollout import (
    Command,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.serving import ModelStatus
from edgefleet.protocol.shadow import ShadowSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.agent_process import AgentProcess
from support.asking import Asker, Case, Question
from support.bad_requests import PLANTED
from support.hub_process import HubProcess, running_hub
from support.tiny_models import loop_on

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SEGFAULT_MARK = "segfault on white"
WHITE = 254.0  # the smallest value of a white picture is larger
MODELS = ("detector", "digits", "gauge")
INPUTS = {"detector": "image", "digits": "pixels", "gauge": "dial"}
SCORES = {"detector": "cells", "digits": "probabilities", "gauge": "bins"}
CASES = {"detector": 8, "digits": 60, "gauge": 60}
CRASHES = {"3": "SIGFPE", "segfault": "SIGSEGV"}  # releases of the detector, and what ends them
HANG = "hang"  # a release of the detector that loops for ever on a white picture
GATE = GateSpec(
    min_sample=1, soak_s=0.2, confirm_after_s=2.5, silence_s=60.0, max_latency_p95_ms=60_000.0
)
NO_LATENCIES = "from edgefleet.agent import limits\nlimits.NEIGHBOUR_SLOWDOWN = float('inf')"
"""Other programs of the test's machine make a model slow; a trial would be blamed for them."""
DEVICE = "door"


def unavailable() -> str:
    """The reason why the example models cannot be made here. Empty if they can."""
    sys.path.insert(0, str(EXAMPLES / "three-models"))
    try:
        import detector  # noqa: PLC0415 - an example, found by its path

        return str(detector.missing())
    finally:
        sys.path.pop(0)


@cache
def examples() -> Path:
    """The folder with the releases of detector and gauge. They are made once for these sources."""
    script = EXAMPLES / "three-models" / "make_releases.py"
    sources = sorted(
        path
        for name in ("three-models", "digits")
        for path in (EXAMPLES / name).glob("*.[pn][yp]*")
    )
    key = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    made = ROOT / ".cache" / "three-models" / key
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            subprocess.run([sys.executable, script, Path(folder) / "new"], check=True)
            try:
                (Path(folder) / "new").rename(made)
            except OSError:  # another process was first
                assert made.exists()
    return made


def release_folder(model: str, release: str) -> Path:
    place = FOLDER if model == "digits" else examples()
    return place / model / f"release-{release}"


def copy_of(
    source: Path, name: str, folder: Path, *, description: str = "", hangs: bool = False
) -> Path:
    """The same release under another name, with other digests. The graph is the same.

    With ``hangs`` it loops for ever on a white picture.
    """
    made = folder / f"{source.parent.name}-{name}"
    shutil.copytree(source, made)
    text = (made / "release.toml").read_text()
    old = source.name.removeprefix("release-")
    (made / "release.toml").write_text(
        text.replace(f'release = "{old}"', f'release = "{name}"').replace('parent = "1"\n', "")
    )
    for path in made.glob("*.onnx"):
        graph = onnx.load(path)
        graph.doc_string = description or name
        if hangs:
            _hang_on_white(graph.graph)
        path.write_bytes(graph.SerializeToString(deterministic=True))
    return made


def _hang_on_white(graph: onnx.GraphProto) -> None:
    """Put a Loop behind the first input: without a turn, except for a white picture."""
    given = graph.input[0].name
    for node in graph.node:
        node.input[:] = ["looped" if name == given else name for name in node.input]
    nodes, constants = loop_on(given, "ReduceMin", WHITE)
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(constants)


@dataclass
class Home:
    """The device, what its rollouts asked for, and what its clients may be answered."""

    folder: Path
    hub: HubProcess
    agent: AgentProcess
    key: PublisherKey
    confirmed: dict[str, str] = field(default_factory=dict)  # by completed rollouts
    offered: dict[str, str] = field(default_factory=dict)  # by open rollouts
    rollouts: dict[str, str] = field(default_factory=dict)  # the last one of each model
    expected: dict[str, dict[str, list[NDArray[np.float32] | None]]] = field(default_factory=dict)
    _named: dict[str, tuple[str, str]] = field(default_factory=dict)  # digest -> model, release

    def start(self) -> None:
        """Start the agent, with a runtime that segfaults for marked releases."""
        self.agent.start(environ=PLANTED)

    def publish(self, folder: Path) -> None:
        built = build_release(folder, created_at=1.0)
        client = self.hub.client()
        for digest, path in built.files.items():
            client.upload(digest, path)
        client.publish(sign_manifest(built.manifest, self.key))
        model, release = built.manifest.model, built.manifest.release
        (variant,) = (one for one in built.manifest.variants if one.profile == "generic_x86")
        self._named[variant.artifact.sha256] = model, release
        answers = self.expected.setdefault(model, {})
        answers[release] = answers_of(model, built.files[variant.artifact.sha256])

    def roll_out(self, model: str, release: str, shadow: ShadowSpec | None = None) -> None:
        spec = RolloutSpec(
            model=model,
            release=release,
            waves=(WaveSpec(percent=100),),
            gate=GATE,
            shadow=shadow or ShadowSpec(),
        )
        client = self.hub.client()
        self.rollouts[model] = client.plan(spec).id
        self.offered[model] = release
        client.command(self.rollouts[model], Verb.START, Command())

    def decide(self, view: RolloutView) -> RolloutView:
        """Revert a release that failed. Returns the view.

        One failure never decides, so in this fleet of one it is left to a person, who waits for the
        judgement of the hub: it is stored a tick after the report that shows in ``why``.
        """
        judged = view.waves[0].judgement
        is_judged = judged is not None and judged.evidence.failed > 0
        if is_judged and any(wait.code is WaitCode.INCONCLUSIVE for wait in view.why.waits):
            self.hub.client().command(view.id, Verb.REVERT, Command())
        return view

    def ended(self, model: str) -> RolloutView:
        """Wait for the end of the model's rollout."""
        client, last = self.hub.client(), None
        for seen in watch(
            client, self.rollouts[model], clock=SystemClock(), timeout_s=90, every_s=0.1
        ):
            if isinstance(seen, Observed):
                last = self.decide(seen.view)
        assert last is not None
        release = self.offered.pop(model)
        if last.status is Status.COMPLETED:
            self.confirmed[model] = release
        return last

    def history(self) -> tuple[DeviceAttempt, ...]:
        """The attempts of the device, as the hub shows them."""
        return self.hub.client().device_history(DEVICE).attempts

    def unquarantine(self) -> None:
        """Allow further releases after two rollbacks of one model."""
        if self.hub.client().quarantined().devices:
            self.hub.client().unquarantine(DEVICE, Unquarantine())

    def question(self, model: str) -> Question:
        return Question(
            model, cases(model), SCORES[model], self.expected[model], rtol=1e-4, atol=1e-5
        )

    @contextmanager
    def clients(self, pause_s: float = 0.01) -> Iterator[Mapping[str, Asker]]:
        """One client for each model, which never stops."""
        askers = {
            model: Asker(self.agent.serve, self.question(model), pause_s=pause_s)
            for model in MODELS
        }
        with ExitStack() as stack:
            for asker in askers.values():
                stack.enter_context(asker)
            yield askers

    def check(self) -> None:
        """Every model has a valid release, and each is one that its rollouts asked for.

        The pointer names confirmed releases only. In the serving process at most one release is
        on trial, and that is the release of an open rollout.
        """
        state = self.agent.state()
        assert state is not None, "there is no state"
        pointed = {
            model: self._named.get(digest or "") for model, digest in self.agent.pointed().items()
        }
        assert pointed.keys() == set(MODELS), f"the pointer names {pointed}"
        for model, found in pointed.items():
            assert found is not None, f"the pointer names an incomplete release of {model}"
            assert found[0] == model, f"the slot of {model} has {found}"
            assert self._is_confirmed(state, *found), f"the pointer names {found}, not confirmed"
        status = self.agent.status()
        assert status is not None, "nothing is served"
        assert {one.model for one in status.models} == set(MODELS), "a model is not served"
        assert sum(one.on_trial for one in status.models) <= 1, "two models are in trial"
        for one in status.models:
            self._check_served(state, one)

    def _check_served(self, state: AgentState, one: ModelStatus) -> None:
        assert one.ready, f"{one.model} is not served"
        assert self._named.get(one.artifact_sha256) == (one.model, one.release)
        if one.on_trial:
            assert one.release == self.offered.get(one.model), f"no rollout offered {one}"
        else:
            assert self._is_confirmed(state, one.model, one.release), f"{one} is not confirmed"

    def _is_confirmed(self, state: AgentState, model: str, release: str) -> bool:
        """By a completed rollout; or by the device, and the hub does not know it yet."""
        if release == self.confirmed.get(model):
            return True
        mine = state.models[model]
        new = slot(mine, mine.active) if mine.active else None
        return (
            release == self.offered.get(model)
            and new is not None
            and new.confirmed
            and new.installed is not None
            and new.installed.release == release
        )


@contextmanager
def home(folder: Path) -> Iterator[Home]:
    """The device on release 1 of each model. The three rollouts were open at once."""
    with ExitStack() as stack:
        hub = stack.enter_context(running_hub(folder / "hub", interval_s=0.3, offline_after_s=60))
        key = PublisherKey.generate()
        hub.client().trust(TrustKey(name="publisher", public_key=key.public.text))
        (claim,) = hub.client().claim(ClaimRequest(count=1)).claims
        place = folder / DEVICE
        place.mkdir()
        agent = AgentProcess(place, hub, key, claim=claim, name=DEVICE, fault=NO_LATENCIES)
        stack.callback(agent.end)
        made = Home(folder, hub, agent, key)
        for model in MODELS:
            made.publish(release_folder(model, "1"))
        made.start()
        agent.wait(lambda state: state.facts_known)
        for model in MODELS:
            made.roll_out(model, "1")
        for model in MODELS:
            end = made.ended(model)
            assert end.status is Status.COMPLETED, end
        yield made


@cache
def cases(model: str) -> tuple[Case, ...]:
    """The requests of a client: inputs as in the field, and for the detector one white picture."""
    place = FOLDER if model == "digits" else examples()
    with np.load(place / model / "field.npz", allow_pickle=False) as file:
        inputs = file[f"input.{INPUTS[model]}"][: CASES[model]]
        more = [file["overexposed"]] if model == "detector" else []
    return tuple({INPUTS[model]: case} for case in [*np.split(inputs, len(inputs)), *more])


def answers_of(model: str, path: Path) -> list[NDArray[np.float32] | None]:
    """The scores for each case. None for the white picture if the release ends on it."""
    graph = onnx.load(path)
    crashes = graph.doc_string == SEGFAULT_MARK or any(
        node.op_type in ("Div", "Loop") for node in graph.graph.node
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32] | None] = []
    for case in cases(model):
        is_white = model == "detector" and case[INPUTS[model]].min() > WHITE
        ends = crashes and is_white
        found.append(None if ends else session.run([SCORES[model]], dict(case))[0])
    return found
