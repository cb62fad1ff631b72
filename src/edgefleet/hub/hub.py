"""The hub as one object, which the API, the page and the check-in listener call."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from msgspec.structs import replace

from edgefleet import __version__
from edgefleet.base.clock import Clock, SteadyClock
from edgefleet.base.entropy import Entropy, SystemEntropy
from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.base.zones import utc_offset_s
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.checkin_handler import DevicePlane
from edgefleet.hub.collection import Collector
from edgefleet.hub.copied_devices import CopiedDevices
from edgefleet.hub.cursors import cursor, read_choice, read_number, read_text
from edgefleet.hub.datadir import DataDir
from edgefleet.hub.device_commands import DeviceCommands
from edgefleet.hub.device_history import device_history
from edgefleet.hub.device_names import device_names
from edgefleet.hub.device_queries import DeviceQueries
from edgefleet.hub.device_views import DeviceViews
from edgefleet.hub.devices import Devices
from edgefleet.hub.downloads import Downloads
from edgefleet.hub.event_log import EventLog
from edgefleet.hub.event_stream import EventStreams
from edgefleet.hub.field_figures import FieldFigures
from edgefleet.hub.field_views import FieldViews
from edgefleet.hub.file_reader import FileReader
from edgefleet.hub.forks import Forks
from edgefleet.hub.hooks.deliveries import WebHooks
from edgefleet.hub.limits import DEVICE_REPORTS, ROLLOUTS_SHOWN, UNKNOWN_SHOWN
from edgefleet.hub.logins import Logins
from edgefleet.hub.loop import Loop
from edgefleet.hub.metrics import Gauges, Metrics
from edgefleet.hub.people import People
from edgefleet.hub.quarantine_log import QuarantineLog
from edgefleet.hub.queue_time import QueueTime
from edgefleet.hub.rates import RequestRates
from edgefleet.hub.registry import RegisteredRelease, Registry
from edgefleet.hub.release_counts import ReleaseHistory
from edgefleet.hub.restored import Restored
from edgefleet.hub.rollout_commands import RolloutCommands
from edgefleet.hub.settings import Address, HubSettings
from edgefleet.hub.snapshots import Snapshots
from edgefleet.hub.store.faults import readable_rows
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.hub.truth import WaitingTruth
from edgefleet.hub.watched_devices import WatchedDevices
from edgefleet.protocol.device import (
    EnrolAnswer,
    EnrolRequest,
)
from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.device_figures import DeviceFigures
from edgefleet.protocol.field_figures import ModelField
from edgefleet.protocol.label_evidence import LabelEvidence
from edgefleet.protocol.operator import (
    AuditPage,
    ClaimRequest,
    Claims,
    DeviceHistory,
    DevicePage,
    DeviceView,
    FleetView,
    Health,
    Models,
    ModelView,
    Names,
    PlanFleet,
    PublishRequest,
    QuarantinedDevices,
    ReleaseView,
    RolloutHistory,
    Rollouts,
    TruthAdded,
    TruthRequest,
    Unquarantine,
)
from edgefleet.protocol.restored import ReenrolRequest
from edgefleet.protocol.rollout import (
    ApproveRequest,
    Command,
    Freeze,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
)
from edgefleet.protocol.why import WaitReport
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.reports import FleetFigures
from edgefleet.rollout.fleet.runs import Runs, parse_runs
from edgefleet.rollout.plan_fleet import compose
from edgefleet.rollout.why.baseline import warnings
from edgefleet.security.credentials import DeviceIdentity
from edgefleet.security.principals import Principal


class OpenStore(Protocol):
    """Opens the database of a hub. With ``must_exist`` an empty one is refused."""

    def __call__(self, path: Path, /, *, must_exist: bool = False) -> SqliteStore: ...


_ALL: Final = DeviceFilter()
_DEVICES: Final = "devices"  # the lists with cursors
_ROLLOUTS: Final = "rollouts"


class Hub:
    """Create with ``open``. Every answer is of bounded size or paged."""

    def __init__(
        self,
        settings: HubSettings,
        folder: DataDir,
        clock: Clock,
        entropy: Entropy,
        open_store: OpenStore,
    ) -> None:
        """``folder`` is already locked by this process. Opens the store; ``load`` reads it."""
        self.settings = settings
        self.folder = folder
        self.clock = clock
        operator_token = folder.operator_token(entropy)
        secret = folder.hub_secret(entropy)
        self._started = clock.monotonic()
        self._checkin = Address.parse(settings.checkin_listen, field="checkin_listen")
        self._metrics = Metrics()
        self._history = ReleaseHistory()
        self._history.load(folder.release_counts())
        self.blobs = Blobs(folder.blobs, max_bytes=settings.max_artifact_bytes)
        self._store = store = open_store(folder.database, must_exist=folder.was_used)
        self.people = People(store, clock, entropy, operator_token=operator_token)
        self.rates = RequestRates(clock, settings.operator_requests_per_s)
        self.logins = Logins(
            store,
            self.people,
            clock,
            entropy,
            operator_token=operator_token,
            oidc=settings.oidc,
        )
        self._engine = engine = _engine(settings, clock.now())
        self.downloads = Downloads()
        self._reader = FileReader(self.blobs)
        self.registry = Registry(
            store,
            self.blobs,
            clock,
            reader=self._reader,
            published=engine.add_release,
            interface_changes=engine.interface_changes,
        )
        self._devices = Devices(
            store,
            engine.fleet,
            self.registry,
            secret=secret,
            clock=clock,
            entropy=entropy,
        )
        self._rollout_commands = RolloutCommands(store, engine, clock, entropy)
        self._queries = DeviceQueries(engine, self._devices)
        self.restored = Restored(store, engine, clock)
        self.forks = Forks(lambda: engine.fleet.device_count)
        self.collector = Collector(
            self.blobs, self.registry, store, clock, ahead=lambda: self.restored.ahead_count
        )
        self.snapshots = Snapshots(store, engine, self._metrics, clock)
        self._quarantine_log = QuarantineLog(store, engine, clock)
        self.event_log = EventLog(store)
        self.event_streams = EventStreams(self.event_log, clock)
        self.hooks = WebHooks(
            store, self.event_log, clock, entropy, allow_local=settings.allow_local_hooks
        )
        self._truth = WaitingTruth(
            store, clock, has_model=self._has_model, takes_labels=self._takes_labels
        )
        self._watched = WatchedDevices()
        self._field = FieldFigures(
            engine.fleet, self.registry.knows, folder.keep_field_figures, now=clock.now()
        )
        self._field.load(folder.field_figures())
        self._field_views = FieldViews(self._field, self.registry, self.blobs)
        self._views = DeviceViews(
            engine, self._devices, self.registry, self._truth, started_at=clock.now()
        )
        self.device_commands = DeviceCommands(
            store, engine, self._devices, self._truth, clock, view=self.device
        )
        self.copied = CopiedDevices(store, engine.fleet, clock, view=self.device)
        self.device_plane = DevicePlane(
            self._devices,
            engine,
            store,
            self._metrics,
            clock,
            truth=self._truth,
            watched=self._watched,
            field=self._field,
            unknown=self.restored.note_unknown,
            queue_time=QueueTime(
                clock, interval_s=settings.interval_s, offline_s=settings.offline_s
            ),
        )
        self.loop = Loop(
            self._rollout_commands,
            self.flush,
            self.snapshots.save,
            self.collector.step,
            self._quarantine_log.tick,
            history=self._history,
            keep_history=folder.keep_release_counts,
            fleet=engine.fleet,
            metrics=self._metrics,
            clock=clock,
        )

    @classmethod
    async def open(
        cls,
        settings: HubSettings,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        *,
        open_store: OpenStore = SqliteStore.open,
    ) -> "Hub":
        """Lock the data folder, open its database with ``open_store`` and load its state.

        On a full or read-only disk the hub answers what needs no write. Raises OperatorError
        ``data_dir_in_use``, ``data_dir_damaged``, ``setting_invalid`` or ``store_foreign``, or
        DeviceError ``disk_full`` or ``disk_readonly`` if it cannot read either.
        """
        folder = DataDir(settings.data_dir)
        try:
            hub = cls(
                settings, folder, clock or SteadyClock(), entropy or SystemEntropy(), open_store
            )
        except BaseException:
            folder.release()
            raise
        try:
            with readable_rows(hub.check_database):
                hub.load()
        except BaseException:
            await hub.close()
            raise
        return hub

    def load(self) -> None:
        """Restore the state in memory from the store, then start the writer thread."""
        self.people.load()
        self.logins.load()
        self.registry.load()
        removed = self._devices.load()
        self._rollout_commands.load()
        self.restored.load()
        self.snapshots.load()
        for row, at in removed.items():
            self._engine.remove_device(row, at)
        self.copied.load()
        self._truth.load()
        self._quarantine_log.load()
        self.hooks.load()
        self._store.start(self._committed)

    def _committed(self, seconds: float) -> None:
        self._metrics.commit_seconds.observe(seconds)
        self.event_log.committed()

    def check_database(self) -> str:
        """A fault of the database that SQLite finds. Empty if it finds none."""
        return self._store.reader.check()

    async def close(self) -> None:
        """Flush unsaved standings, commit queued writes, unlock the data folder."""
        await self.hooks.close()
        try:
            if self._store.started:
                self._field.keep(self.clock.now(), at_once=True)
                await self.flush()
        finally:
            self._reader.close()
            self.downloads.close()
            await self._store.close()
            self.event_log.close()
            self.folder.release()

    async def flush(self) -> None:
        """Store the standings that have changed, as ``loop`` does periodically.

        Raises DeviceError ``overloaded`` or ``disk_full``; the next call tries again.
        """
        await self.restored.flush()
        await self.copied.flush()
        await self._devices.flush()
        await self.people.flush()
        await self.logins.flush()
        await self.hooks.flush()
        self.folder.keep_release_counts(self._history.stored())
        self._field.keep(self.clock.now())

    # Devices.

    def identify(self, authorization: str) -> int:
        """The row of the device with this credential. Raises DeviceError."""
        return self._devices.identify(authorization)

    def set_checkin_address(self, checkin: Address) -> None:
        """Set the address of the check-in listener, once its port is bound."""
        self._checkin = checkin

    def checkin_url(self, host: str | None) -> str:
        """The check-in URL for a device that reached this hub under the name ``host``."""
        if self.settings.checkin_url is not None:
            return self.settings.checkin_url
        return self._checkin.url(host if self._checkin.any_host else None)

    async def claims(self, request: ClaimRequest, by: Principal) -> Claims:
        """Make one-use claims. Raises OperatorError ``bad_request``."""
        return await self._devices.claims(request, by)

    async def enrol(self, request: EnrolRequest, host: str | None) -> EnrolAnswer:
        """Exchange a claim for a credential. Raises DeviceError or OperatorError."""
        return self._enrolled(await self._devices.enrol(request), host)

    def check_issued(self, authorization: str) -> None:
        """Raise DeviceError ``credential_invalid`` for a credential that this hub did not make."""
        self._devices.identity_of(authorization)

    async def reenrol(
        self, authorization: str, request: ReenrolRequest, host: str | None
    ) -> EnrolAnswer:
        """Enrol a device of which this hub lost its record, by its credential.

        Raises DeviceError ``credential_invalid``, ``device_removed``, ``device_name_taken`` or
        ``reenrolment_not_allowed``.
        """
        identity = self._devices.identity_of(authorization)
        try:
            self._devices.identify(authorization)
        except DeviceError as error:
            if error.code != "device_unknown":
                raise
            self.restored.check_allowed(identity.name)
            identity = await self._devices.enrol_again(identity.name, request)
            self.restored.known_again(identity.name)
        return self._enrolled(identity, host)

    def _enrolled(self, identity: DeviceIdentity, host: str | None) -> EnrolAnswer:
        return EnrolAnswer(
            device=identity.name,
            token=self._devices.credential(identity),
            checkin_url=self.checkin_url(host),
            interval_s=self.settings.interval_s,
        )

    def devices(self, after: str | None, limit: int, only: DeviceFilter = _ALL) -> DevicePage:
        """One page of the devices that ``only`` selects, in order of enrolment.

        Raises OperatorError ``cursor_invalid``, ``selector_invalid``, ``name_invalid``,
        ``bad_request`` or ``not_found``.
        """
        start = 0 if after is None else read_number(after, _DEVICES) + 1
        if only.runs:
            self._known(parse_runs(only.runs))
        now = self.clock.now()
        rows = self._queries.rows(only, now)
        rest = rows[rows.searchsorted(start) :]
        shown = rest[:limit].tolist()
        return DevicePage(
            devices=tuple(self._views.view(row, now) for row in shown),
            next=cursor(_DEVICES, shown[-1]) if len(rest) > limit else None,
            count=len(rows),
        )

    def names(self, kind: str, prefix: str, model: str, limit: int) -> Names:
        """The first ``limit`` names of a kind that begin with ``prefix``.

        Raises OperatorError ``not_found`` for an unknown kind or model.
        """
        match kind:
            case "devices":
                found = device_names(self._engine.fleet)
            case "rollouts":
                found = (state.id for state in reversed(self._engine.states()))
            case "models":
                found = iter(sorted(self.registry.models()))
            case "releases" if model:
                found = iter(self.model(model).releases)
            case _:
                raise OperatorError("not_found", f"There are no names of {kind}.", field="kind")
        fitting = (name for name in found if name.startswith(prefix))
        return Names(names=tuple(islice(fitting, limit)))

    def device(self, name: str) -> DeviceView:
        """Raises OperatorError ``not_found``."""
        return self._views.view(self.row(name), self.clock.now())

    def why_device(self, name: str) -> WaitReport:
        """Why a device runs what it runs. Raises OperatorError ``not_found``."""
        return self._engine.why_device(self.row(name), self.clock.now())

    def device_history(self, name: str) -> DeviceHistory:
        """The last attempts of a device at releases. Raises OperatorError ``not_found``."""
        found = self._store.reader.outcomes_of(self.row(name), DEVICE_REPORTS + 1)
        models = {state.id: state.spec.model for state in self._engine.states()}
        return device_history(name, found, models, most=DEVICE_REPORTS)

    def device_figures(self, name: str) -> DeviceFigures:
        """The serving figures that a device reported since it was first asked for.

        Raises OperatorError ``not_found``.
        """
        return self._watched.figures(self.row(name), name, self.clock.now())

    # Releases.

    async def publish(self, request: PublishRequest, by: Principal) -> ReleaseView:
        """Publish a signed release. Raises PublisherError and then changes nothing."""
        return self._release(await self.registry.publish(request.envelope, by))

    def models(self) -> Models:
        running = self._figures().on_release
        names = sorted(self.registry.models())
        return Models(models=tuple(self._model(name, running) for name in names))

    def model(self, name: str) -> ModelView:
        """Raises OperatorError ``not_found``."""
        if name not in self.registry.models():
            raise OperatorError("not_found", f"There is no model {name}.")
        return self._model(name, self._figures().on_release)

    def release(self, model: str, release: str) -> ReleaseView:
        """Raises OperatorError ``not_found``."""
        return self._release(self.registry.release(model, release))

    def why_release(self, model: str, release: str) -> WaitReport:
        """The progress of a release through the fleet. Raises OperatorError ``not_found``."""
        self.registry.release(model, release)
        return self._engine.why_release(model, release, self.clock.now())

    def model_field(self, model: str) -> ModelField:
        """Latency and memory of a model in the field. Raises OperatorError ``not_found``."""
        self._known(Runs(model, None), field="model")
        return self._field_views.model(model)

    # Rollouts.

    async def plan(self, spec: RolloutSpec, by: Principal) -> RolloutView:
        """Plan a rollout without starting it. Raises OperatorError."""
        return self.rollout(await self._rollout_commands.plan(spec, by))

    def plan_fleet(self, spec: RolloutSpec) -> PlanFleet:
        """Check a plan as ``plan`` does, and count the devices it covers. Raises OperatorError.

        A changed interface is in the answer.
        """
        now = self.clock.now()
        shown = replace(spec, changes_interface=True)  # the changes are in the answer
        state = self._engine.plan(shown, rollout_id="none", salt=0, now=now)
        manifest = self.registry.release(spec.model, spec.release).manifest
        return compose(
            self._engine.fleet,
            spec,
            manifest,
            self._engine.without_room(spec),
            interval_s=self.settings.interval_s,
            now=now,
            blocked=self._engine.waiting_for_a_person(spec.model),
            warnings=(*warnings(state), *self._field_views.warnings(manifest)),
            interface=state.interface,
        )

    async def command(
        self, rollout: str, verb: Verb, command: Command, by: Principal
    ) -> RolloutView:
        """Apply an operator's verb. Raises OperatorError ``verb_not_now`` or ``not_found``."""
        await self._rollout_commands.command(rollout, verb, command, by)
        return self.rollout(rollout)

    async def approve(self, rollout: str, request: ApproveRequest, by: Principal) -> RolloutView:
        """Record a person's approval of a rollout. Raises OperatorError."""
        await self._rollout_commands.approve(rollout, request, by)
        return self.rollout(rollout)

    async def freeze(self, request: Freeze, by: Principal) -> Freeze:
        """Freeze or unfreeze the whole fleet. Returns the new state."""
        await self._rollout_commands.freeze(request, by)
        return self._engine.freeze

    def frozen(self) -> Freeze:
        """The freeze state of the fleet."""
        return self._engine.freeze

    def quarantined(self) -> QuarantinedDevices:
        """Devices on which two different releases of a model failed.

        The count is complete; at most ``QUARANTINED_SHOWN`` devices are listed.
        """
        return self._views.quarantined()

    async def unquarantine(self, name: str, request: Unquarantine, by: Principal) -> DeviceView:
        """Clear a device's quarantine. Raises OperatorError ``device_not_quarantined``."""
        await self._rollout_commands.unquarantine(self.row(name), request, by)
        return self.device(name)

    async def add_truth(self, request: TruthRequest, by: Principal) -> TruthAdded:
        """Add late labels for the answers of a device. Raises OperatorError."""
        return await self._truth.add(self.row(request.device), request, by)

    def rollouts(
        self,
        model: str = "",
        status: str = "",
        *,
        after: str | None = None,
        limit: int = ROLLOUTS_SHOWN,
    ) -> Rollouts:
        """One page of rollouts, newest first, of one model or of all, with one status or with any.

        Raises OperatorError ``cursor_invalid``, ``bad_request`` or ``not_found``.
        """
        if model:
            self._known(Runs(model, None), field="model")
        before = None if after is None else read_text(after, _ROLLOUTS)
        wanted = read_choice(status, tuple(Status), "status")
        found = (
            state.id
            for state in self._engine.states()
            if model in ("", state.spec.model)
            and wanted in ("", state.status)
            and (before is None or state.id < before)  # ids sort by age
        )
        ids = tuple(islice(found, limit + 1))
        more = cursor(_ROLLOUTS, ids[limit - 1]) if len(ids) > limit else None
        return Rollouts(rollouts=tuple(map(self.rollout, ids[:limit])), next=more)

    def rollout(self, rollout: str) -> RolloutView:
        """Raises OperatorError ``not_found``."""
        return self._engine.view(rollout, self.clock.now())

    def why_rollout(self, rollout: str) -> WaitReport:
        """The reasons why the rollout waits. Raises OperatorError ``not_found``."""
        return self._engine.why_rollout(rollout, self.clock.now())

    def history(self, rollout: str) -> RolloutHistory:
        """Online devices by release over time. Raises OperatorError ``not_found``."""
        view = self.rollout(rollout)
        points = self._history.points(view.model, view.started_at, view.ended_at)
        return RolloutHistory(rollout=rollout, points=points)

    # The whole hub.

    def fleet(self) -> FleetView:
        """Counts of the fleet now. The size does not grow with the number of devices."""
        figures = self._figures()
        return FleetView(
            at=self.clock.now(),
            total=figures.total,
            online=figures.online,
            by_profile=figures.by_profile,
            on_release=figures.on_release,
            by_phase=figures.by_phase,
            rollouts_open=self._engine.open_rollouts(),
            frozen=self._engine.freeze.frozen,
            unknown_sets=figures.unknown_sets,
            serving_down=figures.serving.down,
            serving_unstable=figures.serving.unstable,
            disk_faults=figures.disk_faults,
            quarantined=self._queries.quarantined_count(),
            copied=self.copied.count,
            ahead=self.restored.ahead_count,
            unknown_devices=self.restored.unknown[-UNKNOWN_SHOWN:],
        )

    def audit(self, before: int | None, limit: int) -> AuditPage:
        """One page of the audit log, newest first."""
        entries = self._store.reader.audit(before, limit)
        more = len(entries) == limit and entries[-1].id > 1
        return AuditPage(entries=entries, next=entries[-1].id if more else None)

    def health(self) -> Health:
        return Health(
            status="ok",
            version=__version__,
            devices=self._engine.fleet.device_count,
            uptime_s=self.clock.monotonic() - self._started,
            fault=self._store.fault,
        )

    def metrics(self) -> str:
        """All metrics in Prometheus' text format."""
        statuses = Counter(state.status.value for state in self._engine.states())
        return self._metrics.text(
            Gauges(
                fleet=self._figures(),
                rollouts={status.value: statuses[status.value] for status in Status},
                waits=((view.id, view.why) for view in self.rollouts().rollouts),
                quarantined=self._queries.quarantined_count(),
                copied=self.copied.count,
                ahead=self.restored.ahead_count,
                unknown=len(self.restored.unknown),
                labels=self._labels(),
                labels_waiting=self._truth.count,
                releases=sum(len(releases) for releases in self.registry.models().values()),
                writes=self._store.writer.writes,
                queue_depth=self._store.writer.depth,
                uptime_s=self.clock.monotonic() - self._started,
            )
        )

    def _labels(self) -> Iterator[tuple[str, LabelEvidence]]:
        """The labels of the newest rollouts that have some, by rollout."""
        for view in self.rollouts().rollouts:
            if not view.evidence.labels.is_empty:
                yield view.id, view.evidence.labels

    def _has_model(self, row: int, model: str) -> bool:
        return any(report.model == model for report in self._engine.fleet.models.reports(row))

    def _takes_labels(self, row: int) -> bool:
        return self._devices.facts(row).takes_labels

    def _figures(self) -> FleetFigures:
        return self._engine.fleet.figures(self.clock.now())

    def row(self, name: str) -> int:
        """Raises OperatorError ``not_found``."""
        row = self._engine.fleet.row(name)
        if row is None:
            raise OperatorError("not_found", f"There is no device {name}.")
        return row

    def _known(self, runs: Runs, field: str = "runs") -> Runs:
        """Return ``runs`` if it is published. Raises OperatorError ``not_found``."""
        releases = self.registry.models().get(runs.model)
        if releases is None:
            raise OperatorError("not_found", f"There is no model {runs.model}.", field=field)
        if runs.release is not None and runs.release not in releases:
            raise OperatorError(
                "not_found", f"There is no release {runs.release} of {runs.model}.", field=field
            )
        return runs

    def _model(self, name: str, running: Mapping[str, dict[str, int]]) -> ModelView:
        newest_first = tuple(reversed(tuple(self.registry.models()[name])))
        return ModelView(name=name, releases=newest_first, devices=running.get(name, {}))

    def _release(self, published: RegisteredRelease) -> ReleaseView:
        manifest = published.manifest
        running = self._figures().on_release.get(manifest.model, {})
        return ReleaseView(
            manifest=manifest,
            manifest_sha256=published.manifest_sha256,
            signed_by=published.signed_by,
            published_at=published.published_at,
            devices=running.get(manifest.release, 0),
        )


def _engine(settings: HubSettings, now: float) -> Engine:
    return Engine(
        now=now,
        offline_after_s=settings.offline_s,
        gate=settings.gate,
        utc_offset_s=utc_offset_s,
    )
