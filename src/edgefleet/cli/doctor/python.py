"""The version of Python."""

import platform
import sys
from typing import Final

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State

OLDEST: Final = (3, 11)


def check(context: Context) -> Finding:
    del context
    version = platform.python_version()
    wanted = ".".join(map(str, OLDEST))
    if sys.version_info < OLDEST:
        return Finding(
            check="python",
            state=State.BAD,
            text=f"Python {version} is too old: {wanted} or newer is needed.",
            fix=f"Install Python {wanted} or newer and create the virtual environment again.",
        )
    return Finding(check="python", state=State.OK, text=f"Python {version}.")
