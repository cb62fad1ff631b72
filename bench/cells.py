"""Cells of a benchmark: each is measured in a process of its own and stored as soon as it ends.

A benchmark has keys, and a key has cells. ``BENCH.py`` measures them all, ``BENCH.py KEY...`` and
``BENCH.py KEY/CELL...`` some, and ``BENCH.py --missing`` those that are not stored for this commit:
what a break has left. Each cell says its commit and its CPU time.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from result_file import path_of, write

Cell = Callable[[], dict[str, Any]]
Keys = Mapping[str, Mapping[str, Cell]]
Found = dict[str, dict[str, dict[str, Any]]]
"""The figures by key and cell."""


def measure(name: str, keys: Keys, doc: str, before: Found | None = None) -> Found:
    """Measure the cells that the command line names. Returns all that are stored in NAME.json.

    ``before`` has the figures of an earlier commit; a cell shows its own beside the new ones.
    Ends the process with exit code 2 if the command line names a key that is not there.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="KEY[/CELL]", help="default: all")
    parser.add_argument("--missing", action="store_true", help="only what this commit has not")
    parser.add_argument("--out", type=Path, default=path_of(name), metavar="FILE")
    options = parser.parse_args()
    chosen = [(key, cell) for key, cells in keys.items() for cell in cells]
    if options.cells:
        known = {*keys, *("/".join(pair) for pair in chosen)}
        if wrong := sorted(set(options.cells) - known):
            parser.error(f"no such key or cell: {', '.join(wrong)}; keys are {', '.join(keys)}")
        wanted = set(options.cells)
        chosen = [pair for pair in chosen if pair[0] in wanted or "/".join(pair) in wanted]
    stored, commit = _stored(options.out, keys), _commit()
    if options.missing:
        chosen = [
            (key, cell) for key, cell in chosen
            if stored.get(key, {}).get(cell, {}).get("commit") != commit
        ]  # fmt: skip
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(_timed, keys[key][cell]): (key, cell) for key, cell in chosen}
        for number, ended in enumerate(as_completed(running), start=1):
            key, cell = running[ended]
            found, cpu_s = ended.result()
            if (earlier := (before or {}).get(key, {}).get(cell)) is not None:
                found = {**found, "before": earlier}
            stored.setdefault(key, {})[cell] = {**found, "commit": commit, "cpu_s": cpu_s}
            write(options.out, stored)
            said = json.dumps(found)
            print(f"[{number}/{len(chosen)}] {key}/{cell} {cpu_s:g} s {said}", flush=True)
    return stored


def _timed(cell: Cell) -> tuple[dict[str, Any], float]:
    began = time.process_time()
    return cell(), round(time.process_time() - began, 1)


def _stored(path: Path, keys: Keys) -> Found:
    """The values that the file has for ``keys``, in their order."""
    old = json.loads(path.read_text()) if path.exists() else {}
    return {
        key: {cell: old[key][cell] for cell in cells if cell in old.get(key, {})}
        for key, cells in keys.items()
    }


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return told.stdout.strip() or "unknown"
