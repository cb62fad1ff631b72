"""Reads profiles from folders of TOML files, and finds those of the user.

``~/.config/edgefleet/profiles`` (``$XDG_CONFIG_HOME/edgefleet/profiles``) is read beside the
built-in ones, then the folder or file that the user names. A later profile replaces one of the same
name.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.optimize import limits
from edgefleet.optimize.profiles.profile import Profile

_SUFFIX: Final = ".toml"
_TFLITE: Final = ("litert", "edgetpu")


def user_folder() -> Path:
    """The folder of the user's own profiles. It may be missing."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "edgefleet" / "profiles"


def with_own(
    built_in: Mapping[str, Profile], named: Path | None = None, own: Path | None = None
) -> Mapping[str, Profile]:
    """``built_in`` with the profiles of the folder ``own``, then of the folder or file ``named``.

    Raises PublisherError ``profile_invalid`` with the field and the fix.
    """
    found = dict(built_in)
    if own is not None and own.is_dir():
        found.update(read_folder(own))
    if named is not None:
        one_file = named.is_file()
        found.update({(one := read_file(named)).name: one} if one_file else read_folder(named))
    return MappingProxyType(found)


def read_folder(folder: Path) -> Mapping[str, Profile]:
    """The profiles of a folder by name. Raises PublisherError ``profile_invalid``."""
    try:
        files = sorted(one for one in folder.iterdir() if one.suffix == _SUFFIX)
    except OSError as error:
        raise _invalid(
            f"{folder} is no folder that can be read.",
            hint=f"Name a folder with files such as jetson_nano{_SUFFIX}.",
        ) from error
    if len(files) > limits.PROFILES:
        raise _invalid(f"{folder} has {len(files)} profiles; {limits.PROFILES} are the most.")
    return MappingProxyType({one.name: one for one in map(read_file, files)})


def read_file(path: Path) -> Profile:
    """One profile. Its name is that of the file. Raises PublisherError ``profile_invalid``."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.RELEASE_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > limits.RELEASE_FILE_BYTES:
        raise _invalid(f"{path.name} has more than {limits.RELEASE_FILE_BYTES:,} bytes.")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"{path.name} is no TOML: {error}.") from error
    name = path.stem
    if table.setdefault("name", name) != name:
        raise _invalid(
            f"{path.name} names the profile {table['name']!r}.",
            field=f"{name}.name",
            hint=f"Leave name out, or call the file {table['name']}{_SUFFIX}.",
        )
    try:
        check_name(name, field="name")
        profile = msgspec.convert(table, Profile)
    except EdgefleetError as error:
        raise _invalid(error.message, field=f"{name}.name", hint=error.hint) from error
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `")
        at = at.rstrip("`").removeprefix("$").lstrip(".")
        raise _invalid(f"{message}.", field=f"{name}.{at}" if at else name) from error
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    if profile.precision not in profile.precisions:
        raise _invalid(
            f"Profile {profile.name} prefers {profile.precision}, which is none of its precisions "
            f"{', '.join(profile.precisions)}.",
            field=f"{profile.name}.precision",
            hint=f"Add {profile.precision!r} to precisions, or prefer another.",
        )
    if profile.runtime in _TFLITE and profile.activations != "int8":
        raise _invalid(
            f"TFLite has no {profile.activations} activations.",
            field=f"{profile.name}.activations",
            hint='Set activations = "int8".',
        )


def _invalid(message: str, field: str | None = None, hint: str | None = None) -> PublisherError:
    return PublisherError("profile_invalid", message, field=field, hint=hint)
