"""The Python that runs this."""

import platform
import sys
from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State

OLDEST: Final = (3, 11)


def check(ground: Ground) -> Finding:
    del ground
    version = platform.python_version()
    wanted = ".".join(map(str, OLDEST))
    if sys.version_info < OLDEST:
        return Finding(
            check="python",
            state=State.BAD,
            text=f"Python {version} is too old.",
            fix=f"Install Python {wanted} or newer and make the environment again.",
        )
    return Finding(check="python", state=State.OK, text=f"Python {version}.")
