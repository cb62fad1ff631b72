"""The values of the demo's options: the faults that it can plant, and the largest fleet."""

from enum import StrEnum
from typing import Final

DEVICES_MAX: Final = 9_990  # claims per request at the hub, less those of the real agents


class Fault(StrEnum):
    """A fault to plant."""

    GATE = "gate"  # the gate of the bad release passes everything
    PROOF = "proof"  # the golden set of the broken release has no minimum
    SERVING = "serving"  # a serving process is killed under load
    SCOPE = "scope"  # the plan of a model that is added leaves the real devices out
    BAKE = "bake"  # the rollout of the release that bakes has no bake
    DISPLACE = "displace"  # the real agents serve one model only: a new one displaces the rest
