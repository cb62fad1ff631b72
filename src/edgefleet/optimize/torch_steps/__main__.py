"""The child process: reads a job, writes its outcome. Runs under a Python that has PyTorch."""

import os
import sys
from pathlib import Path

from edgefleet.base.errors import EdgefleetError
from edgefleet.optimize.torch_steps.job import Answer, Done, Failed, Job
from edgefleet.protocol.wire import decode, encode


def main(job_path: Path, outcome_path: Path) -> None:
    """Do the job. An error without a type ends the process with its traceback."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python -m does
    job = decode(job_path.read_bytes(), Job)
    outcome: Done | Failed
    try:
        outcome = _do(job)
    except EdgefleetError as error:
        outcome = Failed(code=error.code, message=error.message, hint=error.hint)
    partial = outcome_path.with_suffix(".partial")
    partial.write_bytes(encode(Answer(outcome=outcome)))
    partial.replace(outcome_path)


def _do(job: Job) -> Done:
    from edgefleet.optimize.torch_steps.train import do  # noqa: PLC0415 - imports torch

    return do(job)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
