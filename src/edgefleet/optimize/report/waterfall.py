"""How the size of the model fell, step by step, to what a device fetches."""

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.recipe import Recipe
from edgefleet.optimize.report.report import ProfileReport


@dataclass(frozen=True, slots=True)
class Drop:
    """One row: the size before it and after it, in bytes. Both are the same where it begins."""

    name: str
    before: int
    after: int


def chosen_of(profile: ProfileReport) -> Measurement | None:
    """The variant that was chosen. None: none."""
    return next((one for _, one in profile.measured if one.sha256 == profile.chosen), None)


def waterfall(profile: ProfileReport) -> tuple[Drop, ...]:
    """The rows for the variant that was chosen. Empty: there is none."""
    chosen = chosen_of(profile)
    if chosen is None:
        return ()
    rows = [
        Drop("the model as it was given", profile.baseline.size_bytes, profile.baseline.size_bytes)
    ]
    for name, size in _steps(profile, chosen):
        rows.append(Drop(name, rows[-1].after, size))
    rows.append(Drop("compressed for the transfer", chosen.size_bytes, chosen.compressed_bytes))
    if chosen.delta_bytes is not None and chosen.delta_bytes < chosen.compressed_bytes:
        rows.append(
            Drop(
                "as a difference to what devices have", chosen.compressed_bytes, chosen.delta_bytes
            )
        )
    return tuple(rows)


def _steps(profile: ProfileReport, chosen: Measurement) -> Iterator[tuple[str, int]]:
    """The steps of the recipe with the size after each.

    A step whose result was not a candidate of its own goes with the next one.
    """
    known = {one.recipe: one.size_bytes for _, one in profile.measured}
    names: list[str] = []
    steps = chosen.recipe.steps
    for count in range(1, len(steps) + 1):
        names.append(_name(Recipe(runtime=chosen.recipe.runtime, steps=steps[count - 1 : count])))
        size = known.get(replace(chosen.recipe, steps=steps[:count]))
        if size is not None:
            yield "+".join(names), size
            names = []


def _name(recipe: Recipe) -> str:
    return recipe.name.partition(" ")[2]
