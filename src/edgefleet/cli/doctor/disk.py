"""Free disk space for artifacts and the hub's database."""

import shutil
from typing import Final

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import size

FREE_BAD_BYTES: Final = 200 << 20
FREE_WARNING_BYTES: Final = 2 << 30


def check(context: Context) -> Finding:
    place = context.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{size(free)} free at {place}."
    if free >= FREE_WARNING_BYTES:
        return Finding(check="disk", state=State.OK, text=text)
    return Finding(
        check="disk",
        state=State.BAD if free < FREE_BAD_BYTES else State.WARNING,
        text=text,
        fix="Free space there, or use another data folder with --data-dir.",
    )
