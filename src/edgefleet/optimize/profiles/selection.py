"""Which profiles fit the facts of a device."""

from collections.abc import Iterable
from typing import Final

from edgefleet.optimize.profiles.profile import Profile
from edgefleet.protocol.device import Facts

# Runtimes that a device has for its accelerator say most about its class.
_RANK: Final = {"edgetpu": 0, "tensorrt": 1, "litert": 2, "onnx": 3}


def fitting(facts: Facts, profiles: Iterable[Profile]) -> tuple[Profile, ...]:
    """The profiles whose variants the device can run, the best first.

    The profile that the device names comes first, whatever its facts. Of others the device must
    have the usual runtime, the machine (``uname -m``) and the memory of a variant. Profiles of an
    accelerator come before others, those for the device's own machine before those for any, and
    among equals the one with the larger memory limit.
    """
    found = [one for one in profiles if one.name == facts.profile or _fits(facts, one)]
    return tuple(sorted(found, key=lambda one: _order(facts, one)))


def selected(facts: Facts, profiles: Iterable[Profile]) -> Profile | None:
    """The first of ``fitting``. None if no profile fits."""
    return next(iter(fitting(facts, profiles)), None)


def _fits(facts: Facts, profile: Profile) -> bool:
    return (
        profile.runtime in facts.runtimes
        and (not profile.arch or facts.arch in profile.arch)
        and profile.memory_limit_mib <= (facts.models_memory_mib or facts.memory_mib)
    )


def _order(facts: Facts, profile: Profile) -> tuple[bool, int, bool, int, str]:
    return (
        profile.name != facts.profile,
        _RANK.get(profile.runtime, len(_RANK)),
        not profile.arch,
        -profile.memory_limit_mib,
        profile.name,
    )
