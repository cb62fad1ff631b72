"""The profiles that are optimised for, their runtimes, and what their accelerators can run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.edgetpu.coverage import coverage
from edgefleet.optimize.profiles import PROFILES, Profile
from edgefleet.optimize.profiles.reading import user_folder, with_own
from edgefleet.optimize.techniques import measured_runtime

_FORMATS: Final[Mapping[str, str]] = {"onnx": "an ONNX file", "litert": "a TFLite file"}


def named_profiles(names: Sequence[str], own: Path | None = None) -> list[Profile]:
    """The profiles called so: built in, of the user's folder, or of the folder or file ``own``.

    Raises PublisherError ``release_file_invalid`` for an unknown name, ``profile_invalid``.
    """
    known = with_own(PROFILES, own, user_folder())
    for name in names:
        if name not in known:
            raise PublisherError(
                "release_file_invalid",
                f"There is no profile {name!r}.",
                field="profile",
                hint=f"Name one of {', '.join(known)}, or put {name}.toml into {user_folder()}.",
            )
    return [known[name] for name in names]


def runtime_of(profile: Profile, given: Sequence[str]) -> str:
    """The runtime that measures the profile's candidates: the first of its own that has a source.

    ``given`` are the runtimes of the sources. Raises PublisherError ``model_unsupported``.
    """
    own = [measured_runtime(one) for one in profile.runtimes]
    for runtime in own:
        if runtime in given:
            return runtime
    wanted = " or ".join(dict.fromkeys(_FORMATS.get(one, one) for one in own))
    raise PublisherError(
        "model_unsupported",
        f"Profile {profile.name} runs {' or '.join(profile.runtimes)}, and no file of the model is "
        "for that.",
        field="model",
        hint=f"Give {wanted} of the same model too.",
    )


def judges_speed(profile: Profile, runtime: str) -> bool:
    """Whether latencies in ``runtime`` say something about the profile.

    Those of a file for an accelerator do not: it is measured on a CPU.
    """
    return measured_runtime(profile.runtime) != runtime or profile.runtime == runtime


def check_mapped(profile: Profile, model: Path) -> str:
    """The operators of a variant that the accelerator runs, as a sentence. Empty without a table.

    Raises PublisherError ``operators_unmapped`` if it runs nothing of it.
    """
    if profile.runtime != "edgetpu":
        return ""
    found = coverage(model)
    if not found.mapped:
        raise PublisherError("operators_unmapped", found.text, field="edgetpu")
    return found.text
