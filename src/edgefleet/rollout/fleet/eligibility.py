"""Eligibility: which devices a release fits, and why it does not fit the others."""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.release import ReleaseManifest, Variant
from edgefleet.protocol.version import OLDEST_SERVED, PROTOCOL, is_served
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.rollout.fleet.fleet import NOT_REPORTED, Kit


class Misfit(StrEnum):
    """The reason why a device is not eligible. The codes are stable."""

    NO_VARIANT = "no_variant"  # the release has no variant for the profile of the device
    RUNTIME_MISSING = "runtime_missing"  # the device does not have the runtime of the variant
    MEMORY_TOO_SMALL = (
        "memory_too_small"  # the memory limit of the variant exceeds the device memory
    )
    MEMORY_FULL = "memory_full"  # the other models that the device should run leave too little
    AGENT_TOO_OLD = "agent_too_old"  # the hub does not serve the protocol version of the agent
    AGENT_ONE_MODEL = "agent_one_model"  # the agent has one model, and runs another one


def variants_of(manifest: ReleaseManifest) -> dict[str, Variant]:
    """The variants of a release by profile."""
    return {variant.profile: variant for variant in manifest.variants}


def limits_of(manifest: ReleaseManifest) -> dict[str, int]:
    """The memory limits of a release in MiB, by profile."""
    return {variant.profile: variant.memory_limit_mib for variant in manifest.variants}


def misfit(kit: Kit, variants: Mapping[str, Variant]) -> Misfit | None:
    """The reason why the release does not fit a device of this kit. None if it fits.

    A fact that the device did not report counts as fitting. The device checks it again, and may
    refuse the release.
    """
    variant = variants.get(kit.profile)
    if variant is None:
        return Misfit.NO_VARIANT
    if kit.runtimes and variant.runtime not in kit.runtimes:
        return Misfit.RUNTIME_MISSING
    if 0 < kit.memory_mib < variant.memory_limit_mib:
        return Misfit.MEMORY_TOO_SMALL
    return None


def too_old(protocol: int) -> bool:
    """True if the agent has reported a protocol version that the hub does not serve."""
    return protocol != NOT_REPORTED and not is_served(protocol)


def all_too_old(protocols: npt.NDArray[np.uint8]) -> Mask:
    """``too_old`` for each of ``protocols``."""
    old: Mask = (protocols != NOT_REPORTED) & ((protocols < OLDEST_SERVED) | (protocols > PROTOCOL))
    return old
