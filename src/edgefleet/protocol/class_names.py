"""The names of classes: of a file with one name a line, and in a release.

The names travel inside the signed manifest, which every device of the rollout downloads, so their
number and size are bounded.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final
from unicodedata import category

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted, shortened
from edgefleet.protocol.release import ClassNames, ReleaseManifest, TensorSpec

NAMES: Final = 10_000  # of one output
NAME_CHARS: Final = 256
NAMES_BYTES: Final = 64 << 10  # of all names of a release, as UTF-8
CLASS_FILE_BYTES: Final = 2 * NAMES_BYTES  # with line ends and white space

_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # of Unicode: controls and line ends


def read_names(data: bytes, file: str, field: str) -> tuple[str, ...]:
    """The names in a file: UTF-8, one a line, in the order of the scores.

    A byte order mark, and white space around a name, are no part of it. Raises PublisherError
    ``release_file_invalid`` with ``file`` and the number of the line.
    """
    if len(data) > CLASS_FILE_BYTES:
        raise _invalid(field, f"{file} has more than {CLASS_FILE_BYTES:,} bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(field, f"{file}, line {line} is not UTF-8.") from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        if fault := _fault(name):
            hint = "Give a name to each class of the model, also to one that is not used."
            raise _invalid(field, f"{file}, line {number}: {fault}.", hint=hint)
    return tuple(names)


def check_names(manifest: ReleaseManifest) -> None:
    """Check the names of a manifest. Raises PublisherError ``release_file_invalid``."""
    size_bytes = 0
    outputs: set[str] = set()
    for one in manifest.classes:
        field = f"classes.{one.output}"
        if one.output in outputs:
            raise _invalid(field, f"Output {one.output!r} has names twice.")
        outputs.add(one.output)
        if not 1 <= len(one.names) <= NAMES:
            raise _invalid(field, f"{counted(len(one.names), 'name')}; 1 to {NAMES:,} are allowed.")
        for index, name in enumerate(one.names):
            if fault := _fault(name):
                raise _invalid(field, f"The name of class {index}: {fault}.")
            size_bytes += len(name.encode())
        for number, variant in enumerate(manifest.variants):
            _check_output(one, variant.outputs, field, f"variants[{number}]")
    if size_bytes > NAMES_BYTES:
        raise _invalid(
            "classes",
            f"The names of the classes have {size_bytes:,} bytes; {NAMES_BYTES:,} are allowed.",
            hint="Shorten the names: each device downloads them with the manifest.",
        )


def names_of(manifest: ReleaseManifest) -> Mapping[str, Sequence[str]]:
    """The names of the classes by output."""
    return {one.output: one.names for one in manifest.classes}


def names_text(manifest: ReleaseManifest) -> str:
    """The outputs with names, for people: ``10 of probabilities: zero, one, two, ...``."""
    return "; ".join(
        shortened(f"{len(one.names)} of {one.output}: {', '.join(one.names[:3])}", 100)
        + (", ..." if len(one.names) > 3 else "")
        for one in manifest.classes
    )


def _check_output(one: ClassNames, outputs: Sequence[TensorSpec], field: str, variant: str) -> None:
    spec = next((spec for spec in outputs if spec.name == one.output), None)
    if spec is None:
        raise _invalid(field, f"{variant} has no output {one.output!r}.")
    if spec.datatype in ("BYTES", "BOOL") or len(spec.shape) < 2:
        raise _invalid(
            field,
            f"Output {spec.name!r} of {variant} is {spec.datatype} {list(spec.shape)}, which has "
            "no classes.",
            hint="Name an output of numbers of shape [-1, classes].",
        )
    classes = prod(spec.shape[1:])
    if -1 not in spec.shape[1:] and classes != len(one.names):
        raise _invalid(
            field,
            f"{counted(len(one.names), 'name')} for output {spec.name!r} of {variant}, which has "
            f"{classes}.",
            hint="Give one name for each class, in the order of the scores.",
        )


def _fault(name: str) -> str:
    """The reason why a name is not allowed. Empty if it is."""
    if not name or name != name.strip():
        return "the name is empty" if not name.strip() else "the name has white space around it"
    if len(name) > NAME_CHARS:
        return f"the name has {len(name)} characters; {NAME_CHARS} are allowed"
    if any(category(one) in _CONTROLS for one in name):
        return f"the name {name[:40]!r} has a control character"
    return ""


def _invalid(field: str, message: str, *, hint: str | None = None) -> PublisherError:
    return PublisherError("release_file_invalid", message, field=field, hint=hint)
