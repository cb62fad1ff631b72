"""The real device: its facts, its enrolment and its loop."""

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from queue import SimpleQueue
from types import FrameType

import msgspec

from edgefleet import __version__
from edgefleet.agent.agent_status import AgentStatus, status_of
from edgefleet.agent.board import BoardSensors
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.link import (
    CLAIM_HINT,
    Credential,
    Enrolment,
    HubLink,
    Unenrolled,
    load_credential,
)
from edgefleet.agent.log import LOGGER
from edgefleet.agent.loop import Loop, Parts
from edgefleet.agent.lost_state import recover
from edgefleet.agent.no_link import link_to
from edgefleet.agent.prover import Prover
from edgefleet.agent.runtimes import installed_runtimes
from edgefleet.agent.settings import AgentSettings, serving_fallback
from edgefleet.agent.slots import ENGINES, MODELS, Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.status_socket import answering
from edgefleet.agent.supervisor import Supervisor
from edgefleet.agent.systemd import Notifier
from edgefleet.agent.trust import Trust
from edgefleet.agent.typed_replace import replace
from edgefleet.base.clock import SystemClock
from edgefleet.base.entropy import SystemEntropy
from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.base.limits import COMPARISON_CHARS, COMPARISONS
from edgefleet.base.network import HttpLink, without_secret
from edgefleet.base.storage import FolderStorage, Storage
from edgefleet.protocol.comparisons import BUILT_IN, PLUGIN_GROUP
from edgefleet.protocol.device import Facts, run_name
from edgefleet.protocol.release import LAYOUTS
from edgefleet.protocol.runtimes import ENGINES_VARIABLE


class Device:
    """One agent process. The caller must have the lock on the data folder."""

    def __init__(self, settings: AgentSettings, storage: Storage) -> None:
        """Raises OperatorError for invalid settings."""
        self._settings = settings
        self._storage = storage
        self._hub = without_secret(settings.hub)
        self._slots = Slots(storage)
        self._trust = self._load_trust()
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._facts = facts(settings.profile, settings.models_memory_mib, settings.labels)
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._loop: Loop | None = None
        self._notifier = Notifier(os.environ, self._clock.monotonic)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        A confirmed release is served before the hub is asked, whatever the hub, the enrolment and
        the agent's own files are. Raises DeviceError only if a device without any release cannot
        enrol, OperatorError if its state is one of another version.
        """
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._on_signal)
        self._notifier.ready()
        with answering(self._settings.data_dir, self._status):
            self._run()
        self._notifier.stopping()

    def _run(self) -> None:
        credential = load_credential(self._storage)
        state = self._load_state(credential.interval_s if credential else None)
        if credential is None and not self._settings.claim and not state.models:
            raise self._settings.claim_fault or OperatorError(
                "setting_invalid",
                "The device is not enrolled and has no claim.",
                field="claim",
                hint=CLAIM_HINT,
            )
        if self._settings.claim_fault is not None:
            LOGGER.warning("%s", self._settings.claim_fault)
        try:
            HttpLink(self._settings.hub)
        except OperatorError as error:
            if not state.models:
                raise
            LOGGER.error("The device serves without its hub: %s", error)
        self._slots.make_reserve()
        parts = self._parts(credential, must_enrol=not state.models)
        loop = self._loop = Loop(parts, state, self._facts)
        if not self._signals.empty():
            return
        name = credential.device if credential else self._settings.name
        LOGGER.info("Device %s starts. Its hub is %s.", name, self._hub)
        try:
            loop.run(keep_serving=self._settings.keep_serving)
        except Unenrolled as ended:
            raise ended.error from ended

    def _status(self) -> AgentStatus | None:
        """The status of the agent, for another thread. None if its loop does not answer."""
        if self._loop is not None:
            return self._loop.status()
        return AgentStatus(
            line="The agent reads its files.",
            at=self._clock.now(),
            version=__version__,
            hub=self._hub,
        )

    def _describe(self, hub: HubLink, progress: str, state: AgentState, now: float) -> AgentStatus:
        """The status at ``now``. Before the enrolment its line says what that waits for."""
        credential = hub.credential
        status = status_of(
            state,
            now,
            version=__version__,
            device="" if credential is None else credential.device,
            hub=self._hub,
            progress=progress,
        )
        if credential is not None:
            return status
        waits = f"The device is not enrolled yet: {hub.waiting or 'its enrolment begins.'}"
        return msgspec.structs.replace(status, line=f"{waits} {status.line}")

    def _load_state(self, interval_s: float | None) -> AgentState:
        """The stored state, or the one of the releases on the disk.

        A state of another version is left alone. Its releases are then served, and nothing else.
        ``interval_s`` is that of the enrolment.
        """
        foreign: OperatorError | None = None
        try:
            if (state := self._slots.load()) is not None:
                return state
        except OperatorError as error:
            foreign = error
            self._slots.freeze(DeviceError("state_foreign", error.message, hint=error.hint))
        now = self._clock.now()
        state = recover(self._slots, self._settings.profile, self._trust.open, now)
        if foreign is not None:
            if not state.models:
                raise foreign
            LOGGER.error("%s", foreign)
        return state if interval_s is None else replace(state, interval_s=interval_s)

    def _load_trust(self) -> Trust:
        """The trusted keys. A device with a release serves it even if they cannot be read."""
        try:
            return Trust.load(self._settings.trust)
        except OperatorError as error:
            if not self._slots.pointer():
                raise
            LOGGER.error("%s", error)
            return Trust((), unreadable=error)

    def _parts(self, credential: Credential | None, *, must_enrol: bool) -> Parts:
        settings, storage, clock = self._settings, self._storage, self._clock
        enrolment = Enrolment(
            claim=settings.claim,
            name=settings.name,
            facts=self._facts,
            labels=dict(settings.labels),
        )
        hub = HubLink(
            settings.hub,
            credential,
            enrolment,
            storage,
            link_to,
            entropy=self._entropy,
            must_enrol=must_enrol,
        )
        LOGGER.info("This run of the agent has the number %s.", run_name(hub.run))
        os.environ.setdefault(ENGINES_VARIABLE, storage.locate(ENGINES))
        more = ["--serve-grpc", settings.serve_grpc] if settings.serve_grpc else []
        more += [f"--cors-origin={one}" for one in settings.cors_origin.split(",") if one]
        more += serving_fallback(settings)
        more += settings.serve_bounds.arguments()
        serving = (sys.executable, "-m", "edgefleet.serving", "--listen", settings.serve,
                   "--data-dir", storage.locate(MODELS),
                   "--threads", str(settings.serve_threads), *more)  # fmt: skip
        proof = (sys.executable, "-m", "edgefleet.serving.prove",
                 "--threads", str(settings.serve_threads))  # fmt: skip

        def make_supervisor(ended: Callable[[], None]) -> Supervisor:
            return Supervisor(storage, serving, clock, ended)

        fetcher = Fetcher(
            storage,
            link_to(settings.hub),
            hub.headers,
            clock,
            bytes_per_s=settings.bytes_per_s,
        )

        return Parts(
            slots=self._slots,
            hub=hub,
            fetcher=fetcher,
            prover=Prover(storage, proof),
            make_supervisor=make_supervisor,
            open_envelope=self._trust.open,
            clock=clock,
            entropy=self._entropy,
            sensors=BoardSensors(
                FolderStorage(settings.sysfs) if settings.sysfs.is_dir() else None
            ),
            is_enrolled=credential is not None,
            describe=lambda state, now: self._describe(hub, fetcher.progress.text, state, now),
            notifier=self._notifier,
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)  # safe in a handler; an Event or a Queue is not
        if self._loop is not None:
            self._loop.stop()


def facts(
    profile: str, models_memory_mib: int = 0, labels: tuple[tuple[str, str], ...] = ()
) -> Facts:
    """The facts of this machine. ``models_memory_mib`` and ``labels`` are settings."""
    versions = installed_runtimes()
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
        datatypes=tuple(LAYOUTS),
    )


def _comparisons() -> tuple[str, ...]:
    """The comparisons of a golden set that this device has, those of plug-ins among them."""
    plugins = sorted({f"plugin:{point.name}" for point in entry_points(group=PLUGIN_GROUP)})
    fitting = [name for name in plugins if len(name) <= COMPARISON_CHARS]
    return (*BUILT_IN, *fitting)[:COMPARISONS]
