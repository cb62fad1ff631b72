"""Holds the loaded releases of all models and swaps them without dropping requests."""

import asyncio
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError, error_from_code
from edgefleet.protocol.serving import (
    Apply,
    ModelStatus,
    ServedModel,
    ServedRelease,
    ServingStatus,
)
from edgefleet.serving.active_release import ActiveRelease, check_quality
from edgefleet.serving.runtime import LoadedModel, runtime_for
from edgefleet.serving.stats import memory_kib


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The loaded releases of one model."""

    confirmed: ActiveRelease | None = None
    trial: ActiveRelease | None = None

    def releases(self) -> tuple[ActiveRelease, ...]:
        return tuple(one for one in (self.confirmed, self.trial) if one is not None)


class ModelHost:
    """Holds the loaded releases. ``routes`` is empty until the first ``apply``.

    ``routes`` is the release that answers the requests of each model. It is replaced as a whole.
    Artifacts are loaded only from ``data_dir``, if it is given.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.routes: dict[str, ActiveRelease] = {}
        self.generation = 0
        self.activations = 0
        self._models: dict[str, _Loaded] = {}
        self._data_dir = data_dir
        self._swapping = asyncio.Lock()

    def require(self) -> dict[str, ActiveRelease]:
        """The routes. Raises DeviceError ``not_ready`` if there are none yet."""
        if not self.routes:
            raise DeviceError("not_ready", "This device serves no release yet.")
        return self.routes

    async def apply(self, wanted: Apply) -> None:
        """Load the releases of ``wanted`` beside those that serve, then swap them in at once.

        Requests in progress finish on the previous releases. If loading raises an error (see
        ``Runtime.load``), nothing changes; the field of the error is the model. Releases that are
        loaded already stay so.
        """
        async with self._swapping:
            fresh: list[ActiveRelease] = []
            models: dict[str, _Loaded] = {}
            for one in wanted.models:
                try:
                    models[one.model] = await self._prepare(one, models, fresh)
                except EdgefleetError as error:
                    await self._retire(fresh)
                    raise _about(one.model, error) from error
            before, self._models = self._models, models
            self.routes = {
                model: route
                for model, loaded in models.items()
                if (route := loaded.trial or loaded.confirmed) is not None
            }
            self.generation = wanted.generation
            self.activations += len(fresh)
            kept = {id(one) for loaded in models.values() for one in loaded.releases()}
            await self._retire(
                [
                    one
                    for loaded in before.values()
                    for one in loaded.releases()
                    if id(one) not in kept
                ]
            )

    def status(self, url: str) -> ServingStatus:
        """The answer to the agent's status request."""
        return ServingStatus(
            pid=os.getpid(),
            url=url,
            generation=self.generation,
            memory_mib=memory_kib() >> 10,
            models=tuple(self._status(route) for route in self.routes.values()),
        )

    async def close(self) -> None:
        """Finish the queued inferences."""
        for loaded in self._models.values():
            for release in loaded.releases():
                await asyncio.to_thread(release.retire)

    async def _prepare(
        self, wanted: ServedModel, models: dict[str, _Loaded], fresh: list[ActiveRelease]
    ) -> _Loaded:
        """The releases of one model, loaded. Adds the new ones to ``fresh``."""
        if wanted.model in models:
            raise OperatorError("bad_request", "The model is listed twice.")
        confirmed = await self._loaded(wanted.model, wanted.confirmed, fresh)
        return _Loaded(confirmed, await self._loaded(wanted.model, wanted.trial, fresh))

    async def _loaded(
        self, model: str, wanted: ServedRelease | None, fresh: list[ActiveRelease]
    ) -> ActiveRelease | None:
        """The release, loaded already or now."""
        if wanted is None:
            return None
        for release in self._models.get(model, _Loaded()).releases():
            if release.wanted == wanted:
                return release
        check_quality(wanted)
        loaded = await asyncio.to_thread(self._load, wanted)
        fresh.append(ActiveRelease(model, wanted, loaded))
        return fresh[-1]

    def _status(self, route: ActiveRelease) -> ModelStatus:
        return ModelStatus(
            model=route.model,
            release=route.release,
            artifact_sha256=route.wanted.variant.artifact.sha256,
            ready=True,
            on_trial=self._models[route.model].trial is route,
            stats=route.stats.live(),
        )

    @staticmethod
    async def _retire(releases: list[ActiveRelease]) -> None:
        """Finish the requests of these releases and free their memory."""
        if not releases:
            return
        while releases:
            await asyncio.to_thread(releases.pop().retire)
        await asyncio.to_thread(_return_memory)

    def _load(self, wanted: ServedRelease) -> LoadedModel:
        path = Path(wanted.artifact_path)
        if self._data_dir is not None:
            path = path.resolve()
            if not path.is_relative_to(self._data_dir.resolve()):
                raise OperatorError(
                    "not_found",
                    f"The artifact {path} is not in the data folder.",
                    field="artifact_path",
                )
        return runtime_for(wanted.variant).load(path, wanted.variant)


def _about(model: str, error: EdgefleetError) -> EdgefleetError:
    """The error with the model as its field."""
    where = f"{error.field}: " if error.field else ""
    return error_from_code(error.code, f"{where}{error.message}", field=model, hint=error.hint)


def _return_memory() -> None:
    """Return the memory of a freed model to the system. glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
