"""Which devices a release fits, and why it does not fit the others."""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.release import ReleaseManifest, Variant
from edgefleet.protocol.version import PREVIOUS, PROTOCOL
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.rollout.fleet.fleet import UNHEARD, Kit


class Misfit(StrEnum):
    """Why a device is not eligible: stable codes, counted in the plan."""

    NO_VARIANT = "no_variant"  # the release was not built for its profile
    RUNTIME_MISSING = "runtime_missing"  # the device has another runtime
    MEMORY_TOO_SMALL = "memory_too_small"  # the variant may take more than the device has
    AGENT_TOO_OLD = "agent_too_old"  # its agent speaks neither our protocol nor the one before


def variants_of(manifest: ReleaseManifest) -> dict[str, Variant]:
    """The variants of a release by profile."""
    return {variant.profile: variant for variant in manifest.variants}


def misfit(kit: Kit, variants: Mapping[str, Variant]) -> Misfit | None:
    """Why the release does not fit a device of this kit; None when it does.

    What a device did not say is not guessed: it may find out by itself, and refuse.
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
    """True for an agent that was heard, and speaks a protocol that is not served."""
    return protocol != UNHEARD and not PREVIOUS <= protocol <= PROTOCOL


def all_too_old(protocols: npt.NDArray[np.uint8]) -> Mask:
    """``too_old`` for many at once."""
    old: Mask = (protocols != UNHEARD) & ((protocols < PREVIOUS) | (protocols > PROTOCOL))
    return old
