"""The built-in profiles (hardware classes) and their limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.release import Precision


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults for a variant of this profile. A release may also use other profiles."""

    name: str
    precision: Precision
    max_batch: int
    memory_limit_mib: int


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("jetson_nano", "fp16", max_batch=4, memory_limit_mib=3072),
            Profile("raspberry_pi", "int8", max_batch=1, memory_limit_mib=1024),
            Profile("coral_tpu", "int8", max_batch=1, memory_limit_mib=512),
            Profile("generic_x86", "fp32", max_batch=8, memory_limit_mib=4096),
        )
    }
)
