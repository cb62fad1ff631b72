"""The releases of one model that the serving process has loaded, as values."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgefleet.base.errors import EdgefleetError, error_from_code
from edgefleet.protocol.serving import ServedModel, ServedRelease
from edgefleet.serving.active_release import Release
from edgefleet.serving.memory_budget import Need


@dataclass(frozen=True, slots=True)
class Resident:
    """The loaded releases of one model, of which some may have ended."""

    wanted: ServedModel
    confirmed: Release | None = None
    trial: Release | None = None
    load: str = ""  # how the newest release was loaded
    drained: bool = False  # the confirmed release was unloaded for the trial

    def releases(self) -> tuple[Release, ...]:
        return tuple(one for one in (self.confirmed, self.trial) if one is not None)

    def route(self) -> Release | None:
        """The release that requests go to. None if every one has ended."""
        for release in (self.trial, self.confirmed):
            if release is not None and not release.ended:
                return release
        return None


def left_out(before: Iterable[Resident], now: Iterable[Resident]) -> list[Release]:
    """The releases of ``before`` that are not in ``now``."""
    kept = {id(one) for loaded in now for one in loaded.releases()}
    return [one for loaded in before for one in loaded.releases() if id(one) not in kept]


def about(model: str, error: EdgefleetError) -> EdgefleetError:
    """The error with the model as its field."""
    where = f"{error.field}: " if error.field else ""
    return error_from_code(error.code, f"{where}{error.message}", field=model, hint=error.hint)


def need_of(wanted: ServedRelease, drained_bytes: int, *, in_worker: bool) -> Need:
    """The memory that a load needs."""
    variant = wanted.variant
    return Need(
        variant.artifact.size_bytes,
        variant.runtime,
        in_worker=in_worker,
        limit_bytes=variant.memory_limit_mib << 20,
        drained_bytes=drained_bytes,
    )
