"""Room for artifacts and for the hub's log."""

import shutil
from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import size

FREE_BAD_BYTES: Final = 200 << 20
FREE_LOOK_BYTES: Final = 2 << 30


def check(ground: Ground) -> Finding:
    place = ground.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{size(free)} are free at {place}."
    if free >= FREE_LOOK_BYTES:
        return Finding(check="disk", state=State.OK, text=text)
    return Finding(
        check="disk",
        state=State.BAD if free < FREE_BAD_BYTES else State.LOOK,
        text=text,
        fix="Free space there, or keep the hub's data elsewhere: --data-dir.",
    )
