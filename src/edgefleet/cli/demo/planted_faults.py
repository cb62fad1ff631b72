"""Faults to plant in the demo (``--break``); its own checks must find them."""

import os
import re
import shutil
import signal
from enum import StrEnum
from pathlib import Path

import msgspec

from edgefleet.cli.demo.processes import Agent
from edgefleet.cli.demo.story import Chapter
from edgefleet.optimize.release_folder import RELEASE_FILE
from edgefleet.protocol.rollout import GateSpec, Status


class Fault(StrEnum):
    """A fault to plant."""

    GATE = "gate"  # the gate of the bad release passes everything
    PROOF = "proof"  # the golden set of the broken release has no minimum
    SERVING = "serving"  # a serving process is killed under load


def gate_of(fault: Fault | None, chapter: Chapter) -> GateSpec:
    """The gate of the chapter's rollout."""
    if fault is Fault.GATE and chapter.ends is Status.REVERTED:
        return msgspec.structs.replace(chapter.gate, max_error_rate=1.0, max_confidence_drop=1.0)
    return chapter.gate


def folder_of(fault: Fault | None, chapter: Chapter, examples: Path, scratch: Path) -> Path:
    """The release folder of the chapter."""
    folder = examples / f"release-{chapter.release}"
    if fault is not Fault.PROOF or chapter.ends is not Status.REFUSED:
        return folder
    copy = scratch / folder.name
    shutil.copytree(folder, copy)
    file = copy / RELEASE_FILE
    file.write_text(re.sub(r"(?m)^(min_\w+y|min_agreement) = .*$", r"\1 = 0.0", file.read_text()))
    return copy


def strike(fault: Fault | None, chapter: Chapter, agents: tuple[Agent, ...]) -> str | None:
    """Plant the fault at the start of a chapter. Returns a text. None if there is nothing to do."""
    if fault is not Fault.SERVING or chapter.release != "2":
        return None
    status = agents[0].serving()
    if status is None:
        return None
    os.kill(status.pid, signal.SIGKILL)
    return f"Planted fault: the serving process of {agents[0].name} is killed."
