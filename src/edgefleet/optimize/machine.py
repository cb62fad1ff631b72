"""The machine on which variants are made and measured."""

import os
import platform
import sys
from pathlib import Path
from typing import Final

_CPU_FLAGS: Final = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_CPU_FACTS: Final = ("model name", "flags", "Features")


def machine_facts() -> dict[str, object]:
    """The machine on which figures were measured: without names of hosts or users."""
    facts: dict[str, object] = {
        "system": sys.platform,
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return facts
    cpu: dict[str, str] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        if colon and name.strip() in _CPU_FACTS:
            cpu.setdefault(name.strip(), text.strip())
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    return facts | {
        "cpu": cpu.get("model name", ""),
        "instructions": [flag for flag in _CPU_FLAGS if flag in flags],
    }
