"""The filter of devices by their releases: ``detector:3``, or ``detector`` for any release."""

from dataclasses import dataclass

from edgefleet.base.ids import check_name


@dataclass(frozen=True, slots=True)
class Runs:
    """A model and one of its releases. Any release if ``release`` is None."""

    model: str
    release: str | None


def parse_runs(text: str, *, field: str = "runs") -> Runs:
    """Parse ``model`` or ``model:release``. Raises OperatorError ``name_invalid``."""
    model, colon, release = text.strip().partition(":")
    check_name(model, field=field)
    return Runs(model, check_name(release, field=field) if colon else None)
