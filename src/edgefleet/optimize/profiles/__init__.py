"""Profiles (hardware classes): what a variant of a class may be, as data files.

Each profile is a TOML file of this folder, named after it. Users have their own in other folders,
see ``reading``. A release may also use a profile without a file.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edgefleet.optimize.profiles.profile import Profile
from edgefleet.optimize.profiles.reading import read_folder

BUILT_IN_FOLDER: Final = Path(__file__).parent
_ORDER: Final = ("jetson_nano", "raspberry_pi", "coral_tpu", "generic_x86", "arm64", "phone_npu")


def _built_in() -> Mapping[str, Profile]:
    found = read_folder(BUILT_IN_FOLDER)
    return MappingProxyType({name: found[name] for name in _ORDER})


PROFILES: Final[Mapping[str, Profile]] = _built_in()
"""The built-in profiles by name."""

__all__ = ["BUILT_IN_FOLDER", "PROFILES", "Profile"]
