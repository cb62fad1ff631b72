"""Device reports, as values and as codes in the columns of the fleet."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import ModelReport, Phase
from edgefleet.rollout.fleet.release_sets import Activity
from edgefleet.rollout.fleet.serving_health import ServingFigures

PHASES: Final = tuple(Phase)
PHASE_CODES: Final = {phase: code for code, phase in enumerate(PHASES)}


def phase_code(phase: Phase) -> int:
    """The code of a phase in ``DeviceModels.all_phases``."""
    return PHASE_CODES[phase]


IDLE_CODE: Final = PHASE_CODES[Phase.IDLE]
STAGED_CODE: Final = PHASE_CODES[Phase.STAGED]
TRIAL_CODE: Final = PHASE_CODES[Phase.TRIAL]


class Report(NamedTuple):
    """The last check-in of a device, as stored."""

    last_seen: float  # seconds since the epoch, 0.0 if the device never checked in
    seq: int
    protocol: int
    models: tuple[ModelReport, ...]


class ReportedModels(NamedTuple):
    """The columns of release sets and activities, and their tables by number."""

    set: npt.NDArray[np.uint16]
    activity: npt.NDArray[np.uint16]
    sets: tuple[tuple[tuple[str, str], ...], ...]  # model and release
    activities: tuple[Activity, ...]


class ReportColumns(NamedTuple):
    """The reported columns of a fleet."""

    last_seen: npt.NDArray[np.float64]
    seq: npt.NDArray[np.int64]
    protocol: npt.NDArray[np.uint8]
    models: ReportedModels


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """Counts of the fleet at one time.

    ``by_phase`` counts online devices by the model that is furthest on its way. ``on_release``:
    model -> release -> online devices. ``unknown_sets`` counts online devices whose releases are
    unknown, because the table of release sets is full. ``disk_faults`` counts devices, online or
    not, whose last write failed, by the code of the error.
    """

    total: int
    online: int
    by_profile: dict[str, int]
    by_phase: dict[str, int]
    on_release: dict[str, dict[str, int]]
    unknown_sets: int
    serving: ServingFigures
    disk_faults: dict[str, int]
