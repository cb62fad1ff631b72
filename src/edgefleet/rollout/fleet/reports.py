"""Device reports, as values and as codes in the columns of the fleet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Phase
from edgefleet.rollout.fleet.columns import Mask

PHASES: Final = tuple(Phase)
PHASE_CODES: Final = {phase: code for code, phase in enumerate(PHASES)}


def phase_code(phase: Phase) -> int:
    """The code of a phase in ``Fleet.phases``."""
    return PHASE_CODES[phase]


IDLE_CODE: Final = PHASE_CODES[Phase.IDLE]
STAGED_CODE: Final = PHASE_CODES[Phase.STAGED]
TRIAL_CODE: Final = PHASE_CODES[Phase.TRIAL]


class Report(NamedTuple):
    """The last check-in of a device, as stored."""

    last_seen: float  # seconds since the epoch, 0.0 if the device never checked in
    seq: int
    running: tuple[str, str] | None  # model and release
    phase: Phase


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """Counts of the fleet at one time. ``on_release``: model -> release -> online devices."""

    total: int
    online: int
    by_profile: dict[str, int]
    by_phase: dict[str, int]
    on_release: dict[str, dict[str, int]]

    @classmethod
    def of(
        cls,
        online: Mask,
        profiles: tuple[npt.NDArray[np.uint32], Sequence[str]],
        phases: npt.NDArray[np.uint8],
        running: tuple[npt.NDArray[np.uint32], Sequence[tuple[str, str] | None]],
    ) -> "FleetFigures":
        """Count the columns of a fleet. Profiles and releases are numbers and their names."""
        by_profile: dict[str, int] = dict.fromkeys(profiles[1], 0)
        for number, count in enumerate(np.bincount(profiles[0]).tolist()):
            by_profile[profiles[1][number]] += count
        by_phase = np.bincount(phases[online], minlength=len(PHASES))
        on_release: dict[str, dict[str, int]] = {}
        for number, count in enumerate(np.bincount(running[0][online]).tolist()):
            named = running[1][number]
            if named is not None and count:
                on_release.setdefault(named[0], {})[named[1]] = count
        return cls(
            total=len(online),
            online=int(np.count_nonzero(online)),
            by_profile=by_profile,
            by_phase={phase.value: int(by_phase[code]) for code, phase in enumerate(PHASES)},
            on_release=on_release,
        )
