"""What must hold in every run, one invariant a module."""

from typing import Final

from edgefleet.sim.checkers.approved import Approved
from edgefleet.sim.checkers.arrived import Arrived
from edgefleet.sim.checkers.counted_once import CountedOnce
from edgefleet.sim.checkers.durable import Durable
from edgefleet.sim.checkers.ends import Ends
from edgefleet.sim.checkers.exposure import Exposure
from edgefleet.sim.checkers.frozen import Frozen
from edgefleet.sim.checkers.halted import Halted
from edgefleet.sim.checkers.once_failed import OnceFailed
from edgefleet.sim.checkers.planned import Planned
from edgefleet.sim.checkers.reasons import Reasons
from edgefleet.sim.checkers.soak import Soak
from edgefleet.sim.checkers.valid import Valid
from edgefleet.sim.checkers.waves import Waves
from edgefleet.sim.checkers.went_back import WentBack
from edgefleet.sim.witness import Checker

ALL: Final[tuple[type[Checker], ...]] = (
    Exposure, Waves, CountedOnce, Halted, OnceFailed, WentBack, Arrived, Reasons, Ends, Valid,
    Durable, Planned, Soak, Frozen, Approved,
)  # fmt: skip
