"""How many threads a model may use on this device."""

import os
from typing import Final

from edgefleet.base.cgroup import cpu_quota
from edgefleet.base.errors import OperatorError

VARIABLE: Final = "EDGEFLEET_SERVING_THREADS"
"""The setting, as the serving process gives it to its workers. Empty or 0: by the quota."""


def thread_count() -> int:
    """The threads of a run: the setting, else the whole CPUs in the quota of the cgroup.

    1 without a quota: other programs need the cores too. At most the CPUs that this process may
    use.
    """
    text = os.environ.get(VARIABLE, "")
    wanted = int(text) if text.isascii() and text.isdecimal() else 0
    if not wanted:
        wanted = int(cpu_quota() or 1)
    return max(1, min(wanted, len(os.sched_getaffinity(0))))


def set_thread_count(text: str) -> None:
    """Set it for this process and its workers. Raises OperatorError ``setting_invalid``."""
    if not (text.isascii() and text.isdecimal() and int(text) <= 1024):
        raise OperatorError(
            "setting_invalid",
            f"{text!r} is not a number of threads from 0 to 1024.",
            field="threads",
            hint="Give 0 for the whole CPUs in the quota of the cgroup, or a number such as 2.",
        )
    os.environ[VARIABLE] = text
