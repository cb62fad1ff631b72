"""The reports of devices, as values and as codes in the columns of the fleet."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from edgefleet.protocol.device import Phase

PHASES: Final = tuple(Phase)
PHASE_CODES: Final = {phase: code for code, phase in enumerate(PHASES)}


def phase_code(phase: Phase) -> int:
    """The number that stands for a phase in ``Fleet.phases``."""
    return PHASE_CODES[phase]


IDLE_CODE: Final = PHASE_CODES[Phase.IDLE]
STAGED_CODE: Final = PHASE_CODES[Phase.STAGED]
TRIAL_CODE: Final = PHASE_CODES[Phase.TRIAL]


class Report(NamedTuple):
    """The last check-in of a device, as it is stored."""

    last_seen: float  # seconds since the epoch, 0.0 if the device never checked in
    seq: int
    running: tuple[str, str] | None  # model and release
    phase: Phase


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """The fleet at one moment. ``on_release`` counts online devices: model -> release -> count."""

    total: int
    online: int
    by_profile: dict[str, int]
    by_phase: dict[str, int]
    on_release: dict[str, dict[str, int]]
