"""Invariant checkers: each module checks one invariant in every run."""

from typing import Final

from edgefleet.sim.virtual.checkers.approved import Approved
from edgefleet.sim.virtual.checkers.arrived import Arrived
from edgefleet.sim.virtual.checkers.class_back import ClassBack
from edgefleet.sim.virtual.checkers.constraints import Constraints
from edgefleet.sim.virtual.checkers.counted_once import CountedOnce
from edgefleet.sim.virtual.checkers.durable import Durable
from edgefleet.sim.virtual.checkers.ends import Ends
from edgefleet.sim.virtual.checkers.exposure import Exposure
from edgefleet.sim.virtual.checkers.frozen import Frozen
from edgefleet.sim.virtual.checkers.halted import Halted
from edgefleet.sim.virtual.checkers.models_known import ModelsKnown
from edgefleet.sim.virtual.checkers.neighbour_untouched import NeighbourUntouched
from edgefleet.sim.virtual.checkers.once_failed import OnceFailed
from edgefleet.sim.virtual.checkers.one_trial import OneTrial
from edgefleet.sim.virtual.checkers.reasons import Reasons
from edgefleet.sim.virtual.checkers.serves_accepted import Valid
from edgefleet.sim.virtual.checkers.soak import Soak
from edgefleet.sim.virtual.checkers.wave_cuts import Waves
from edgefleet.sim.virtual.checkers.went_back import WentBack
from edgefleet.sim.virtual.observer import Checker

ALL: Final[tuple[type[Checker], ...]] = (
    Exposure, Waves, CountedOnce, Halted, OnceFailed, WentBack, Arrived, Reasons, Ends, Valid,
    Durable, Constraints, Soak, Frozen, Approved, OneTrial, NeighbourUntouched, ModelsKnown,
    ClassBack,
)  # fmt: skip
