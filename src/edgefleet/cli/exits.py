"""Exit codes: stable, so that a script can act on them. ``docs/cli.md`` repeats this table."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from edgefleet.base.errors import EdgefleetError, Party


class Exit(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    WAITING = 4
    NETWORK = 5
    OURS = 70
    INTERRUPTED = 130


MEANING: Final[Mapping[Exit, str]] = MappingProxyType(
    {
        Exit.DONE: "done",
        Exit.FAILED: "the operation failed: for example, a rollout was rolled back",
        Exit.USAGE: "bad usage or bad input: nothing was changed",
        Exit.REFUSED: "the hub refused the request: its error is printed",
        Exit.WAITING: "timeout: the rollout has not ended yet",
        Exit.NETWORK: "the hub could not be reached or did not answer",
        Exit.OURS: "a defect of edgefleet: please report it",
        Exit.INTERRUPTED: "interrupted by Ctrl-C; the hub continues its work",
    }
)

_FAILURES: Final = frozenset(
    {
        "golden_failed",
        "step_failed",
        "operators_unmapped",
        "training_missing",
        "golden_refused",
        "inference_failed",
        "runtime_missing",
        "disk_full",
        "address_in_use",
        "data_dir_in_use",
        "data_dir_damaged",
        "demo_failed",
    }
)


_BAD_INPUT: Final = frozenset(
    {
        "artifact_too_large",
        "bad_request",
        "calibration_invalid",
        "evaluation_invalid",
        "digest_mismatch",
        "golden_mismatch",
        "model_is_pickle",
        "model_truncated",
        "model_unsupported",
        "name_invalid",
        "not_a_model",
        "profile_invalid",
        "release_file_invalid",
        "setting_invalid",
        "signature_invalid",
        "store_foreign",
    }
)
"""Errors in what the command was given. The command itself or the hub finds them."""


def exit_of(error: EdgefleetError) -> Exit:
    """The exit code for ``error``: a function of its code, wherever it was found."""
    if error.party is Party.NETWORK:
        return Exit.NETWORK
    if error.code in _FAILURES:
        return Exit.FAILED
    if error.party is Party.US:
        return Exit.OURS
    return Exit.USAGE if error.code in _BAD_INPUT else Exit.REFUSED
