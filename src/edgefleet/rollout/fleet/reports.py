"""Device reports, as values and as codes in the columns of the fleet."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from edgefleet.protocol.device import Phase

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
