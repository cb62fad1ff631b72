"""The real device: its facts, its enrolment and its loop."""

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from types import FrameType

from edgefleet import __version__
from edgefleet.agent import limits
from edgefleet.agent.board import BoardSensors
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.link import Credential, HubLink, enrol, load_credential
from edgefleet.agent.log import LOGGER
from edgefleet.agent.loop import Loop, Parts
from edgefleet.agent.lost_state import recover
from edgefleet.agent.prover import Prover
from edgefleet.agent.settings import AgentSettings
from edgefleet.agent.slots import MODELS, Slots
from edgefleet.agent.supervisor import Supervisor
from edgefleet.agent.trust import Trust
from edgefleet.agent.typed_replace import replace
from edgefleet.base.clock import SystemClock
from edgefleet.base.entropy import SystemEntropy
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.base.limits import COMPARISON_CHARS, COMPARISONS
from edgefleet.base.network import HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.protocol.comparisons import BUILT_IN, PLUGIN_GROUP
from edgefleet.protocol.device import Facts, RuntimeVersion, run_name


class Device:
    """One agent process. The caller must have the lock on the data folder."""

    def __init__(self, settings: AgentSettings) -> None:
        """Raises OperatorError for invalid settings."""
        self._settings = settings
        self._trust = Trust.load(settings.trust)
        self._storage = FolderStorage(settings.data_dir)
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._facts = facts(settings.profile, settings.models_memory_mib, settings.labels)
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._loop: Loop | None = None

    def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises DeviceError if the device cannot enrol."""
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._on_signal)
        slots = Slots(self._storage)
        credential = self._enrolled()
        if credential is None:
            return
        state = slots.load()
        if state is None:
            profile = self._settings.profile
            state = recover(slots, profile, self._trust.open, self._clock.now())
            state = replace(state, interval_s=credential.interval_s)
        slots.make_reserve()
        loop = self._loop = Loop(self._parts(slots, credential), state, self._facts)
        if not self._signals.empty():
            return
        LOGGER.info("device %s, hub %s", credential.device, credential.hub)
        loop.run(keep_serving=self._settings.keep_serving)

    def _parts(self, slots: Slots, credential: Credential) -> Parts:
        settings, storage, clock = self._settings, self._storage, self._clock
        hub = HubLink(credential, storage, HttpLink, self._entropy, self._facts)
        LOGGER.info("run %s", run_name(hub.run))
        serving = (sys.executable, "-m", "edgefleet.serving", "--listen", settings.serve,
                   "--data-dir", storage.locate(MODELS))  # fmt: skip

        def make_supervisor(ended: Callable[[], None]) -> Supervisor:
            return Supervisor(storage, serving, clock, ended)

        return Parts(
            slots=slots,
            hub=hub,
            fetcher=Fetcher(
                storage,
                HttpLink(settings.hub),
                hub.headers,
                clock,
                bytes_per_s=settings.bytes_per_s,
            ),
            prover=Prover(storage, (sys.executable, "-m", "edgefleet.serving.prove")),
            make_supervisor=make_supervisor,
            open_envelope=self._trust.open,
            clock=clock,
            entropy=self._entropy,
            sensors=BoardSensors(
                FolderStorage(settings.sysfs) if settings.sysfs.is_dir() else None
            ),
        )

    def _enrolled(self) -> Credential | None:
        """The credential. Waits for the hub without a time limit. None if stopped before."""
        settings = self._settings
        if credential := load_credential(self._storage, settings.hub):
            return credential
        if not settings.claim:
            raise OperatorError(
                "setting_invalid",
                "The device is not enrolled and has no claim.",
                field="claim",
                hint="Ask the operator for a claim and give it with --claim.",
            )
        link = HttpLink(settings.hub)
        pause_s = limits.BACKOFF_FIRST_S
        while True:
            try:
                return enrol(
                    link,
                    self._storage,
                    hub=settings.hub,
                    claim=settings.claim,
                    name=settings.name,
                    facts=self._facts,
                    labels=dict(settings.labels),
                )
            except NetworkError as error:
                LOGGER.warning("enrolment: %s", error)
            try:
                self._signals.get(timeout=pause_s * (0.5 + 0.5 * self._entropy.uniform()))
            except Empty:
                pause_s = min(limits.ENROL_BACKOFF_MAX_S, pause_s * 2)
            else:
                return None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)  # safe in a handler; an Event or a Queue is not
        if self._loop is not None:
            self._loop.stop()


def facts(
    profile: str, models_memory_mib: int = 0, labels: tuple[tuple[str, str], ...] = ()
) -> Facts:
    """The facts of this machine. ``models_memory_mib`` and ``labels`` are settings."""
    versions = _runtime_versions()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Facts(
        profile=profile,
        agent_version=__version__,
        runtimes=tuple(one.runtime for one in versions),
        arch=os.uname().machine,
        memory_mib=memory >> 20,
        models_memory_mib=models_memory_mib,
        runtime_versions=versions,
        comparisons=_comparisons() if versions else (),
        takes_labels=True,
        labels=labels or None,
    )


def _runtime_versions() -> tuple[RuntimeVersion, ...]:
    """The installed runtimes, read from the metadata of their packages: none is imported."""
    if find_spec("onnxruntime") is None:
        return ()
    try:
        found = version("onnxruntime")
    except PackageNotFoundError:  # built for this board, under the name of another package
        found = ""
    return (RuntimeVersion(runtime="onnx", version=found[:32]),)


def _comparisons() -> tuple[str, ...]:
    """The comparisons of a golden set that this device has, those of plug-ins among them."""
    plugins = sorted({f"plugin:{point.name}" for point in entry_points(group=PLUGIN_GROUP)})
    fitting = [name for name in plugins if len(name) <= COMPARISON_CHARS]
    return (*BUILT_IN, *fitting)[:COMPARISONS]
