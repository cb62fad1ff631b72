"""A real agent process, observed from outside."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Generator
from pathlib import Path
from typing import Protocol

import numpy as np
from msgspec.structs import replace

from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.slots import POINTER, STATE, path, read_pointer
from edgefleet.agent.state import AgentState, ModelState, running
from edgefleet.agent.stored import from_store
from edgefleet.base.errors import NetworkError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.cli.demo.processes import reserve_port
from edgefleet.protocol.device import Offer
from edgefleet.protocol.release import ClassNames, Quality, ReleaseManifest
from edgefleet.protocol.serving import ModelStatus, ServingStatus, model_status
from edgefleet.protocol.wire import decode
from edgefleet.security.signing import PublisherKey, sign_manifest
from support.agent_logs import LOGS
from support.fake_hub import FakeHub
from support.tiny_models import CLASSES, classifier, write_golden

CLASS_NAMES = tuple(f"digit-{number}" for number in range(CLASSES))


def only(state: AgentState) -> ModelState:
    """The state of the device's only model."""
    return next(iter(state.models.values()), ModelState())


class Hub(Protocol):
    """The interface of a hub for these tests: a fake hub or a real one."""

    @property
    def url(self) -> str: ...


class AgentProcess:
    """One device: its folder, its process, its serving process."""

    def __init__(
        self,
        folder: Path,
        hub: Hub,
        key: PublisherKey,
        *,
        claim: str = "claim-1",
        name: str = "device",
        profile: str = "generic_x86",
        fault: str = "",
    ) -> None:
        """``fault`` is Python that runs in the agent's process before it starts."""
        self.folder = folder
        program = (
            f"{fault}\nimport sys\nfrom edgefleet.agent.main import main\n"
            "raise SystemExit(main(sys.argv[1:]))"
        )
        self._program = ("-c", program) if fault else ("-m", "edgefleet.agent")
        self.identity = ("--claim", claim, "--name", name, "--profile", profile)
        self.data = folder / "d"
        self.hub = hub
        self.trust = folder / "trust.txt"
        self.trust.write_text(f"# the publisher\n{key.public.text}\n")
        self._port = reserve_port()
        self.serve = f"127.0.0.1:{self._port.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str, environ: dict[str, str] | None = None) -> None:
        path = self.folder / "agent.log"
        if path not in LOGS:
            LOGS.append(path)
        with path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, "run", "--hub", self.hub.url,
                 *self.identity,
                 "--data-dir", str(self.data), "--trust", str(self.trust),
                 "--serve", self.serve, "--label", "site=lyon", *more],
                stderr=log, env={**os.environ, **(environ or {})},
            )  # fmt: skip

    def kill(self) -> None:
        """Send kill -9, as in a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def state(self) -> AgentState | None:
        data = OwnFile(FolderStorage(self.data), STATE).content()
        return from_store(data) if data else None

    def wait(self, what: Callable[[AgentState], object], timeout_s: float = 60.0) -> AgentState:
        """Poll the state file until ``what`` is true of it."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            state = self.state()
            if state is not None and what(state):
                return state
            time.sleep(0.005)
        raise AssertionError(f"not within {timeout_s} s: {self.state()}\n{self.log()}")

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def status(self) -> ServingStatus | None:
        link = HttpLink(f"unix:{self.data / 'serving.sock'}")
        with contextlib.closing(link):
            try:
                answer = link.request("GET", "/control/status")
            except NetworkError:
                return None
            return decode(answer.body, ServingStatus)

    def kill_serving(self) -> int:
        """Send kill -9 to the serving process. Returns its pid."""
        status = self.status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        return status.pid

    def wait_serving(self, timeout_s: float = 30.0) -> tuple[int, ModelStatus]:
        """Poll until the model is ready. Returns the pid of the process, and the model."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            status = self.status()
            mine = model_status(status, "digits")
            if status is not None and mine is not None and mine.ready:
                return status.pid, mine
            time.sleep(0.02)
        raise AssertionError(f"nothing serves within {timeout_s} s\n{self.log()}")

    def wait_answer(self, timeout_s: float = 60.0) -> None:
        """Poll the address of inference until a model is ready."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            link = HttpLink(f"http://{self.serve}")
            with contextlib.closing(link), contextlib.suppress(NetworkError):
                if link.request("GET", "/v2/health/ready", timeout_s=2.0).status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"nothing answers within {timeout_s} s\n{self.log()}")

    def pointed(self) -> dict[str, str | None]:
        """For each model in the pointer file, the digest of the model file in its slot."""
        storage = FolderStorage(self.data)
        text, seen, digests = storage.read(POINTER) or b"", None, dict[str, str | None]()
        while text != seen:  # it may change during the check
            slots = read_pointer(text).items()
            digests = {
                model: storage.digest(path(model, name, "model.onnx")) for model, name in slots
            }
            text, seen = storage.read(POINTER) or b"", text
        return digests

    def check_valid(self, artifacts: Collection[str] | None = None) -> str | None:
        """Check that the pointer names a slot with a complete model. Returns the running release."""
        known = self.hub.artifacts if isinstance(self.hub, FakeHub) else artifacts or ()
        assert set(self.pointed().values()) <= set(known)
        state = self.state()
        return running(only(state)) if state else None

    def end(self) -> None:
        """End both processes in any state."""
        self._port.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        pid = FolderStorage(self.data).read("serving.pid")
        if pid is not None:
            number = int(pid.split()[0])
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"edgefleet.serving" in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(number, signal.SIGKILL)


class Publisher:
    """Builds real releases and publishes them on the hub."""

    def __init__(self, folder: Path, hub: FakeHub) -> None:
        self.folder = folder
        self.hub = hub
        self.key = PublisherKey.generate()

    def offer(
        self,
        release: str,
        *,
        key: PublisherKey | None = None,
        break_golden: bool = False,
        profile: str = "generic_x86",
        padding: int = 0,
        confirm_after_s: float = 0.5,
        rollout: str | None = None,
        hangs: bool = False,
        slow: bool = False,
        description: str = "",
        datatype: str = "",
    ) -> Offer:
        """Publish a release and make the hub offer it.

        Releases differ in their answers, and not in their confidence: a trial judges it.
        A ``slow`` one takes milliseconds for its largest batch, so it runs in a thread. The
        manifest says ``datatype`` of the inputs, whatever the file has.
        """
        file, golden_file = self.folder / f"{release}.onnx", self.folder / f"{release}.npz"
        model = classifier(
            file,
            turn=sum(release.encode()),
            profile=profile,
            hidden=10 if slow else padding,
            max_batch=512 if slow else 8,
            hangs=hangs,
            description=description,
        )
        golden = write_golden(golden_file, model)
        if break_golden:
            arrays = dict(np.load(golden_file))
            arrays["label"] = (arrays["label"] + 1) % 10
            np.savez(golden_file, **arrays)
            data = golden_file.read_bytes()
            artifact = type(golden.artifact)(sha256=sha256_hex(data), size_bytes=len(data))
            golden = type(golden)(
                artifact=artifact, cases=golden.cases, min_accuracy=0.9, min_agreement=0.9
            )
        variant = model.variant
        if datatype:
            tensor = replace(variant.inputs[0], datatype=datatype)  # type: ignore[arg-type] # or a later one
            variant = replace(variant, inputs=(tensor,))
        manifest = ReleaseManifest(
            model="digits",
            release=release,
            variants=(variant,),
            golden=golden,
            quality=Quality(output="probabilities", scores="probabilities", min_requests=10),
            created_at=0.0,
            classes=(ClassNames(output="probabilities", names=CLASS_NAMES),),
        )
        digest = self.hub.publish(
            sign_manifest(manifest, key or self.key),
            {
                model.variant.artifact.sha256: file.read_bytes(),
                golden.artifact.sha256: golden_file.read_bytes(),
            },
        )
        self.hub.offer = Offer(
            rollout=rollout or f"ro-{release}",
            action="install",
            model="digits",
            release=release,
            manifest_sha256=digest,
            confirm_after_s=confirm_after_s,
        )
        return self.hub.offer


@contextlib.contextmanager
def device(folder: Path, hub: FakeHub) -> Generator[tuple[AgentProcess, Publisher]]:
    """A device that is not started, and the publisher that it trusts."""
    publisher = Publisher(folder, hub)
    agent = AgentProcess(folder, hub, publisher.key)
    try:
        yield agent, publisher
    finally:
        agent.end()
