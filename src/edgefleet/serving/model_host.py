"""Holds the loaded releases of all models and swaps them without dropping requests."""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgefleet import __version__
from edgefleet.base.cgroup import memory_room
from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError
from edgefleet.protocol.serving import (
    Apply,
    ModelStatus,
    ServedModel,
    ServedRelease,
    ServingStatus,
    StuckRelease,
)
from edgefleet.serving.active_release import ActiveRelease, Release, check_quality
from edgefleet.serving.answers import Answers
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.bounds import Bounds
from edgefleet.serving.class_names import class_names
from edgefleet.serving.cpu_use import cpu_use, process_cpu_s
from edgefleet.serving.limits import CLOSE_S, RETIRE_S, SHARED_LOAD_BYTES, WORKER_RUN_S
from edgefleet.serving.loading import Warm, load_model, return_memory
from edgefleet.serving.memory_budget import WORKER_BYTES, decide
from edgefleet.serving.previous import PreviousReleases
from edgefleet.serving.resident import Resident, about, left_out, need_of
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.runtime import runtime_for
from edgefleet.serving.shadows import Shadows
from edgefleet.serving.stats import memory_kib
from edgefleet.serving.worker_release import WorkerRelease


class ModelHost:
    """Holds the loaded releases. ``routes`` is empty until the first ``apply``.

    A confirmed release is loaded in this process, or in a worker with isolation ``process``. A
    release in trial is always in a worker: if it crashes, the other models and the confirmed
    release go on. ``routes`` is the release that answers the requests of each model. It is replaced
    as a whole. Artifacts are loaded only from ``data_dir``, if it is given. ``marks`` show which
    models run in this process.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        marks: RunMarks | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.routes: Mapping[str, Release] = {}
        self.generation = 0
        self.activations = 0
        self._models: dict[str, Resident] = {}
        self._unloaded: list[Release] = []  # drained, and not yet replaced
        self._how = ""  # how the newest release of the model at hand was loaded
        self._stuck: list[Release] = []  # retired, and some may still run a request
        self._data_dir = data_dir
        self._marks = marks or RunMarks()
        self._bounds = bounds or Bounds()
        self.bodies = BodyMemory(self._bounds.bodies_bytes, self._bounds.body_bytes)
        self.refused: list[Counter[str]] = []  # counts of refusals by reason, of other parts
        self.shadows = Shadows(self.bodies)
        self.answers = Answers()
        self._base_kib: int | None = None  # resident memory before the first model
        self._swapping = asyncio.Lock()
        self.previous = PreviousReleases(self._retire, self._swapping)

    def check_ready(self) -> None:
        """Raises DeviceError ``not_ready`` if no model, or not each model, is served."""
        if not self.routes:
            raise DeviceError("not_ready", "This device serves no release yet.")
        for model in self._models.keys() - self.routes.keys():
            raise self.not_served(model)

    def not_served(self, model: str) -> EdgefleetError:
        """The error for a request to a model without a route."""
        if model in self._models or not self.routes:
            return DeviceError("not_ready", f"This device serves no release of {model} now.")
        served = ", ".join(sorted(self.routes))
        return OperatorError(
            "not_found",
            f"This device does not serve model {model}. It serves: {served}.",
            field="model",
            hint="Name a model that it serves; others come by rollout.",
        )

    def unserved(self) -> list[str]:
        """The models whose releases have all ended, by name."""
        return sorted(self._models.keys() - self.routes.keys())

    def on_trial(self, model: str) -> bool:
        """Whether the release that answers requests to the model is in its trial."""
        loaded = self._models.get(model)
        return loaded is not None and loaded.trial is not None and loaded.route() is loaded.trial

    async def apply(self, wanted: Apply) -> None:
        """Load the releases of ``wanted`` beside those that serve, then swap them in at once.

        Requests in progress finish on the previous releases, within RETIRE_S: later they are asked
        of the new ones, and a release that runs one in this process is stuck. If loading raises an
        error (see ``Runtime.load``), nothing changes; the field of the error is the model. Releases
        that are loaded already stay so. A small release whose trial has ended well is then loaded
        in this process; if that fails, it stays in its worker. Shadows are loaded last, in the
        background.
        """
        async with self._swapping:
            await self.shadows.keep(wanted)
            await self.previous.give_way(wanted)
            fresh: list[Release] = []
            models: dict[str, Resident] = {}
            for one in wanted.models:
                try:
                    if one.model in models:
                        raise OperatorError("bad_request", "The model is listed twice.")
                    models[one.model] = await self._prepare(one, fresh)
                except EdgefleetError as error:
                    await self._retire(fresh)
                    await self._load_drained()
                    raise about(one.model, error) from error
            before, self._models = self._models, models
            self.generation = wanted.generation
            self.activations += len(fresh)
            self._set_routes()
            gone = [one for one in left_out(before.values(), models.values())
                    if one not in self._unloaded]  # fmt: skip
            self._unloaded.clear()
            self.previous.use(models)
            await self._retire(self.previous.keep(gone, before, models))
            for one in wanted.models:
                if not self._isolated(one):
                    await self._merge(one.model)
            self.shadows.begin(wanted, self.routes)

    def status(self, url: str, grpc: str = "") -> ServingStatus:
        """The answer to the agent's status request."""
        return ServingStatus(
            pid=os.getpid(),
            version=__version__,
            url=url,
            grpc=grpc,
            generation=self.generation,
            memory_mib=memory_kib() >> 10,
            cpu=cpu_use([*self._workers(), *self.shadows.workers()]),
            labels=self.answers.report(),
            models=tuple(self._status(loaded) for loaded in self._models.values()),
            stuck=tuple(
                StuckRelease(model=one.model, release=one.release, for_s=round(one.stuck_s, 3))
                for one in self._stuck
                if one.stuck_s
            ),
        )

    def _workers(self) -> list[int]:
        return [one.worker for one in self._loaded() if one.worker is not None]

    def _loaded(self) -> list[Release]:
        loaded = [one for loaded in self._models.values() for one in loaded.releases()]
        return [*loaded, *self.previous.of.values()]

    async def close(self) -> None:
        """Finish the queued inferences, within CLOSE_S."""
        self.routes = {}
        await self.shadows.close()
        await self.previous.close()
        loaded = [one for loaded in self._models.values() for one in loaded.releases()]
        await self._retire(loaded, CLOSE_S)
        self.bodies.close()

    def memory_kib(self, release: Release) -> int:
        """The memory of the release alone.

        Exact in a worker. In this process it is the growth while the release was loaded, or all
        growth if no other model is loaded in this process.
        """
        shared = [one for one in self._loaded() if one.worker is None]
        if shared == [release] and self._base_kib is not None:
            return max(0, memory_kib() - self._base_kib)
        return release.memory_kib()

    async def _prepare(self, wanted: ServedModel, fresh: list[Release]) -> Resident:
        """The releases of one model, loaded. Adds the new ones to ``fresh``."""
        confirmed = trial = None
        before = self._models.get(wanted.model)
        self._how = before.load if before else ""
        drained = self._is_drained(wanted)
        if wanted.confirmed is not None and not drained:
            isolated = self._isolated(wanted)
            confirmed = self._find(wanted.model, wanted.confirmed, in_worker=isolated)
            if confirmed is None and wanted.isolation == "shared":
                confirmed = self._find(wanted.model, wanted.confirmed, in_worker=not isolated)
            if confirmed is None:
                # Without any release the model is not served at all: then it is tried in any case.
                if wanted.model in self.routes:
                    await self._make_room(wanted.model, wanted.confirmed, in_worker=isolated)
                confirmed = await self._load(wanted.model, wanted.confirmed, in_worker=isolated)
                fresh.append(confirmed)
        if wanted.trial is not None:
            trial = self._find(wanted.model, wanted.trial, in_worker=True)
            if trial is None or trial is confirmed:
                await self._make_room(wanted.model, wanted.trial, in_worker=True)
                trial = await self._load(wanted.model, wanted.trial, in_worker=True)
                fresh.append(trial)
        if confirmed is not None and confirmed in self._unloaded:
            confirmed, drained = None, True
        return Resident(wanted, confirmed, trial, self._how, drained)

    def _is_drained(self, wanted: ServedModel) -> bool:
        """Whether the confirmed release was unloaded for this trial, which still serves."""
        before = self._models.get(wanted.model)
        return (
            before is not None
            and before.drained
            and before.wanted.confirmed == wanted.confirmed
            and wanted.trial is not None
            and self._find(wanted.model, wanted.trial, in_worker=True) is not None
        )

    async def _make_room(self, model: str, wanted: ServedRelease, *, in_worker: bool) -> None:
        """Drain the releases of the model if there is no room beside them.

        Raises DeviceError ``memory_short``.
        """
        loaded = self._models.get(model)
        old = [one for one in loaded.releases() if not one.ended] if loaded else []
        drained_bytes = sum(
            (self.memory_kib(one) << 10) + (0 if one.worker is None else WORKER_BYTES)
            for one in old
        )
        need = need_of(wanted, drained_bytes, in_worker=in_worker)
        decision = decide(need, memory_room())
        if decision.how != "beside" and self.previous.of:
            await self.previous.free()
            decision = decide(need, memory_room())
        self._how = f"{decision.how}: {decision.text}"
        if decision.how == "refuse":
            raise DeviceError("memory_short", decision.text)
        if decision.how == "drain":
            self._unloaded += old
            self.routes = {name: one for name, one in self.routes.items() if name != model}
            await self._retire(list(old))

    async def _load_drained(self) -> None:
        """Load the confirmed releases again that were unloaded for a load that has failed."""
        for model, loaded in list(self._models.items()):
            gone = [one for one in loaded.releases() if one in self._unloaded]
            wanted = loaded.wanted.confirmed or loaded.wanted.trial
            if not gone or wanted is None:
                continue
            in_worker = gone[0].worker is not None
            again = await self._load(model, wanted, in_worker=in_worker)
            self._models[model] = replace(loaded, confirmed=again, trial=None, drained=False)
        self._unloaded.clear()
        self._set_routes()

    def _isolated(self, wanted: ServedModel) -> bool:
        """Whether the confirmed release is loaded in a worker.

        The runtime blocks this process while it reads a large model, so a large model is loaded
        here only before the process answers its first request.
        """
        release = wanted.confirmed
        return wanted.isolation == "process" or (
            release is not None
            and bool(self.routes)
            and release.variant.artifact.size_bytes > SHARED_LOAD_BYTES
        )

    def _find(self, model: str, wanted: ServedRelease, *, in_worker: bool) -> Release | None:
        """The release, if it is loaded."""
        loaded = self._models[model].releases() if model in self._models else ()
        for release in (*loaded, self.previous.of.get(model)):
            if (
                release is not None
                and release.wanted == wanted
                and not release.ended
                and (release.worker is not None) is in_worker
            ):
                return release
        return None

    async def _load(self, model: str, wanted: ServedRelease, *, in_worker: bool) -> Release:
        check_quality(wanted)
        self._check_path(wanted)
        classes = await asyncio.to_thread(class_names, wanted)
        release: Release
        if in_worker:
            release = await WorkerRelease.start(
                model, wanted, self.bodies, self._ended, queued=self._bounds.queue_of(model)
            )
        else:
            release = await self._load_here(model, wanted)
        release.classes = classes
        return release

    async def _load_here(self, model: str, wanted: ServedRelease) -> ActiveRelease:
        place = self._marks.reserve(model)
        self._marks.marks[place] = 1  # a model may crash the runtime while it is loaded, too
        try:
            loaded, own_kib = await asyncio.to_thread(self._load_model, wanted)
        finally:
            self._marks.release(place)
        return ActiveRelease(
            model,
            wanted,
            loaded.model,
            marks=self._marks,
            queued=self._bounds.queue_of(model),
            times=loaded.times,
            own_kib=own_kib,
        )

    async def _merge(self, model: str) -> None:
        """Load the confirmed release in this process if it is in a worker, then swap it in."""
        loaded = self._models[model]
        worker = loaded.confirmed
        if worker is None or worker.worker is None or worker.ended:
            return
        try:
            merged = await self._load_here(model, worker.wanted)
        except EdgefleetError:
            return
        merged.stats = worker.stats
        merged.classes = worker.classes
        if isinstance(worker, WorkerRelease):
            merged.times = worker.times
        self._models[model] = replace(loaded, confirmed=merged)
        self._set_routes()
        # The same release: a slow request would be asked of it once more.
        await self._retire([worker], WORKER_RUN_S)

    async def _retire(self, releases: list[Release], patience_s: float = RETIRE_S) -> None:
        """Finish the requests of these releases and free their memory."""
        if not releases:
            return
        await asyncio.gather(*[one.retire(patience_s) for one in releases])
        self._stuck = [one for one in (*self._stuck, *releases) if one.stuck_s]
        releases.clear()
        await asyncio.to_thread(return_memory)

    def _ended(self, release: Release) -> None:
        """A worker has ended by itself: the requests of its model go to the other release."""
        self._set_routes()
        loaded = self._models.get(release.model)
        if loaded is not None and loaded.trial is release and loaded.drained:
            self._returning = asyncio.ensure_future(self._return_drained(release.model))

    async def _return_drained(self, model: str) -> None:
        """Load the confirmed release again: it was unloaded for a trial that has ended."""
        async with self._swapping:
            loaded = self._models.get(model)
            if loaded is None or not loaded.drained or loaded.wanted.confirmed is None:
                return
            try:
                again = await self._load(model, loaded.wanted.confirmed, in_worker=True)
            except EdgefleetError:
                return  # the agent sees that the model is not ready, and applies the set again
            self._models[model] = replace(loaded, confirmed=again, drained=False)
            self._set_routes()

    def _set_routes(self) -> None:
        """Send requests to the releases that answer now. The counters of a new one start at 0.

        One that stayed loaded during a trial was counted before: the agent takes all counts of a
        release that it did not see last for new ones.
        """
        before = self.routes
        self.routes = {
            model: route
            for model, loaded in self._models.items()
            if (route := loaded.route()) is not None
        }
        for model, route in self.routes.items():
            last = before.get(model)
            if last is None or (last is not route and last.stats is not route.stats):
                route.stats = route.stats.restarted()

    def _status(self, loaded: Resident) -> ModelStatus:
        route = loaded.route()
        shown = route or loaded.trial or loaded.confirmed
        model = loaded.wanted.model
        if shown is None:
            return ModelStatus(model=model, release="", artifact_sha256="", ready=False)
        memory_mib = self.memory_kib(shown) >> 10
        return ModelStatus(
            model=model,
            release=shown.release,
            artifact_sha256=shown.wanted.variant.artifact.sha256,
            ready=route is not None,
            load=loaded.load,
            on_trial=shown is loaded.trial,
            worker=shown.worker,
            worker_cpu_s=0.0 if shown.worker is None else process_cpu_s(shown.worker),
            trial_ended=loaded.trial.ended if loaded.trial is not None else "",
            confirmed_ended=loaded.confirmed.find_end() if loaded.confirmed is not None else "",
            stats=shown.stats.live(memory_mib, process_kib=memory_kib(shown.worker)),
            shadow=self.shadows.status(model),
        )

    def _check_path(self, wanted: ServedRelease) -> None:
        """Raises OperatorError ``not_found`` if the artifact is not in the data folder."""
        if self._data_dir is None:
            return
        for field, name in (
            ("artifact_path", wanted.artifact_path),
            ("golden_path", wanted.golden_path),
            ("manifest_path", wanted.manifest_path),
        ):
            path = Path(name).resolve()
            if name and not path.is_relative_to(self._data_dir.resolve()):
                raise OperatorError(
                    "not_found", f"The file {path} is not in the data folder.", field=field
                )

    def _load_model(self, wanted: ServedRelease) -> tuple[Warm, int]:
        """The loaded model, and the growth of this process in KiB."""
        runtime_for(wanted.variant).start()
        return_memory()
        before_kib = memory_kib()
        if self._base_kib is None:
            self._base_kib = before_kib
        golden = Path(wanted.golden_path) if wanted.golden_path else None
        loaded = load_model(
            Path(wanted.artifact_path), wanted.variant, golden=golden, gently=bool(self.routes)
        )
        return loaded, max(0, memory_kib() - before_kib)
