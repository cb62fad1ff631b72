"""Eligibility: which devices a release fits, and why it does not fit the others."""

import re
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
    DATATYPE_UNKNOWN = "datatype_unknown"  # the agent cannot read the manifest: a datatype is new
    RUNTIME_MISSING = "runtime_missing"  # the device does not have the runtime of the variant
    RUNTIME_TOO_OLD = "runtime_too_old"  # the device has an older version than the file needs
    COMPARISON_MISSING = "comparison_missing"  # the device cannot prove the release
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


def misfit(kit: Kit, variants: Mapping[str, Variant], comparison: str = "") -> Misfit | None:
    """The reason why the release does not fit a device of this kit. None if it fits.

    ``comparison`` is the one of the golden set, by ``comparison_name``. A fact that the device did
    not report counts as fitting, except comparisons and datatypes: an agent that reports none has
    only the first. The datatypes of all variants count, as the agent reads the whole manifest.
    The device checks it again, and may refuse the release.
    """
    variant = variants.get(kit.profile)
    if variant is None:
        return Misfit.NO_VARIANT
    if not datatypes_of(variants) <= kit.datatypes:
        return Misfit.DATATYPE_UNKNOWN
    if kit.runtimes and variant.runtime not in kit.runtimes:
        return Misfit.RUNTIME_MISSING
    if is_older(runtime_version(kit, variant.runtime), variant.min_runtime):
        return Misfit.RUNTIME_TOO_OLD
    if comparison and comparison not in kit.comparisons:
        return Misfit.COMPARISON_MISSING
    if 0 < kit.memory_mib < variant.memory_limit_mib:
        return Misfit.MEMORY_TOO_SMALL
    return None


def datatypes_of(variants: Mapping[str, Variant]) -> frozenset[str]:
    """The datatypes of the tensors of all variants."""
    return frozenset(
        spec.datatype
        for variant in variants.values()
        for spec in (*variant.inputs, *variant.outputs)
    )


def runtime_version(kit: Kit, runtime: str) -> str:
    """The version of the runtime that the device reported. Empty if it did not."""
    return dict(kit.versions).get(runtime, "")


def is_older(version: str, least: str) -> bool:
    """True if a version is older than another. False if one of them is not known."""
    return bool(_numbers(version)) and _numbers(version) < _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: (1, 31, 1) of ``1.31.1+cu12``."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def too_old(protocol: int) -> bool:
    """True if the agent has reported a protocol version that the hub does not serve."""
    return protocol != NOT_REPORTED and not is_served(protocol)


def all_too_old(protocols: npt.NDArray[np.uint8]) -> Mask:
    """``too_old`` for each of ``protocols``."""
    old: Mask = (protocols != NOT_REPORTED) & ((protocols < OLDEST_SERVED) | (protocols > PROTOCOL))
    return old
