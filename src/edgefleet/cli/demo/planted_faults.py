"""Faults to plant in the demo (``--break``); its own checks must find them."""

import os
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from edgefleet.cli.demo.choices import Fault
from edgefleet.cli.demo.processes import AGENT, SITE, Agent
from edgefleet.cli.demo.story import STORY, Chapter
from edgefleet.optimize.release_folder import RELEASE_FILE
from edgefleet.protocol.rollout import RolloutSpec, Status

_BROKEN_AGENT: Final = "edgefleet.cli.demo.displacing_agent"


def broken_plan(fault: Fault | None, plan: RolloutSpec, chapter: Chapter) -> RolloutSpec:
    """The plan of the chapter's rollout, with the fault if it is one of this plan."""
    if fault is Fault.GATE and chapter.ends is Status.REVERTED:
        gate = msgspec.structs.replace(plan.gate, max_error_rate=1.0, max_confidence_drop=1.0)
        return msgspec.structs.replace(plan, gate=gate)
    if fault is Fault.BAKE:
        return msgspec.structs.replace(plan, bake_s=0)
    if fault is Fault.SCOPE and chapter.model != STORY[0].model:
        return msgspec.structs.replace(plan, selector=f"site!={SITE}")
    return plan


def agent_of(fault: Fault | None) -> str:
    """The module of the real agents' program."""
    return _BROKEN_AGENT if fault is Fault.DISPLACE else AGENT


def folder_of(fault: Fault | None, chapter: Chapter, examples: Path, scratch: Path) -> Path:
    """The release folder of the chapter."""
    folder = examples / chapter.model / f"release-{chapter.release}"
    if fault is not Fault.PROOF or chapter.ends is not Status.REFUSED:
        return folder
    copy = scratch / folder.name
    shutil.copytree(folder, copy)
    file = copy / RELEASE_FILE
    file.write_text(re.sub(r"(?m)^(min_\w+y|min_agreement) = .*$", r"\1 = 0.0", file.read_text()))
    return copy


def strike(fault: Fault | None, act: Sequence[Chapter], agents: tuple[Agent, ...]) -> str | None:
    """Plant the fault at the start of an act. Returns a text. None if there is nothing to do."""
    if fault is not Fault.SERVING or act[-1] is not STORY[-1]:
        return None
    status = agents[0].serving()
    if status is None:
        return None
    os.kill(status.pid, signal.SIGKILL)
    return f"Planted fault: the serving process of {agents[0].name} is killed."
