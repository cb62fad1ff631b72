"""The interface of a release to its clients: how it differs from that of another release.

Clients name inputs and outputs, and send and read tensors of certain types and shapes. A release
that accepts what the other one accepted, and answers as it answered, has no changes.
"""

from collections.abc import Iterator, Sequence

from edgefleet.protocol.class_names import names_of
from edgefleet.protocol.release import ReleaseManifest, TensorSpec, Variant


def interface_changes(before: ReleaseManifest, after: ReleaseManifest) -> tuple[str, ...]:
    """The changes that clients of ``before`` notice, as sentences, each once.

    Variants of profiles that only one of the releases has are not compared.
    """
    old = {variant.profile: variant for variant in before.variants}
    found = [*_meaning(before, after)]
    for variant in after.variants:
        if variant.profile in old:
            found += variant_changes(old[variant.profile], variant)
    return tuple(dict.fromkeys(found))


def changes_from(running: tuple[ReleaseManifest, ...], after: ReleaseManifest) -> tuple[str, ...]:
    """The changes against each release that runs today, with its name in front."""
    return tuple(
        f"Against release {before.release}: {change}"
        for before in running
        if before.release != after.release
        for change in interface_changes(before, after)
    )


def _meaning(before: ReleaseManifest, after: ReleaseManifest) -> Iterator[str]:
    if before.task != after.task:
        yield f"The task is {after.task}, not {before.task}."
    if before.quality and after.quality:
        if before.quality.output != after.quality.output:
            yield (
                f"The class scores are in output {after.quality.output}, "
                f"not {before.quality.output}."
            )
        if before.quality.scores != after.quality.scores:
            yield f"The class scores are {after.quality.scores}, not {before.quality.scores}."
    names = names_of(after)
    for output, old in names_of(before).items():
        yield from _renamed(output, old, names.get(output, ()))


def _renamed(output: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """The first class with another name. Another number of classes is a change of the shape."""
    if not new:
        yield f"The classes of output {output} have no names any more."
        return
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        if before != after:
            yield f"Class {index} of output {output} is {after!r}, not {before!r}."
            return


def variant_changes(before: Variant, after: Variant) -> Iterator[str]:
    """The changes of one variant that clients notice, as sentences."""
    old, new = _by_name(before.inputs), _by_name(after.inputs)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"Input {name} is gone{_instead(new, old)}."
        elif name not in old:
            yield f"Input {name} {_text(new[name])} is new, and clients do not send it."
        elif not _accepts(new[name], old[name]):
            yield f"Input {name} is {_text(new[name])}, not {_text(old[name])}."
    given, made = _by_name(before.outputs), _by_name(after.outputs)
    for name in given:
        if name not in made:
            yield f"Output {name} is gone{_instead(made, given)}."
        elif not _accepts(given[name], made[name]):
            yield f"Output {name} is {_text(made[name])}, not {_text(given[name])}."
    kept = [name for name in made if name in given]
    if kept == [name for name in given if name in made] != list(made)[: len(kept)]:
        yield f"Output {next(name for name in made if name not in given)} is new, and not the last."
    elif kept != [name for name in given if name in made]:
        yield f"The outputs are in the order {', '.join(made)}, not {', '.join(given)}."
    if after.max_batch < before.max_batch:
        yield f"The largest batch is {after.max_batch}, not {before.max_batch}."


def _accepts(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """True if each tensor that fits ``narrow`` fits ``wide``."""
    return (
        wide.datatype == narrow.datatype
        and len(wide.shape) == len(narrow.shape)
        and all(size in (-1, other) for size, other in zip(wide.shape, narrow.shape, strict=True))
    )


def _by_name(specs: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _instead(new: dict[str, TensorSpec], old: dict[str, TensorSpec]) -> str:
    added = [name for name in new if name not in old]
    return f"; {', '.join(added)} {'is' if len(added) == 1 else 'are'} new" if added else ""


def _text(spec: TensorSpec) -> str:
    return f"{spec.datatype} {list(spec.shape)}"
