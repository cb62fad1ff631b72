"""Mutation testing: a checker or a test must catch each planted bug of the engine or agent core.

A mutant is a changed line in a copy of the sources. Simulations, or tests, run on the copy in a
child process. The mutant is caught if a checker reports a violation, the run does not end as its
scenario expects, an assertion of the code fails, or the test fails. The same trials first run on
the unchanged sources and must catch nothing there. Writes bench/out/mutants.json. The exit code is
1 if a mutant survives. ``python bench/mutants.py NAME...`` runs only the named mutants.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutant import Mutant
from mutants_of_bake import MUTANTS as OF_BAKE
from mutants_of_classes import MUTANTS as OF_CLASSES
from mutants_of_clients import MUTANTS as OF_CLIENTS
from mutants_of_cost import MUTANTS as OF_COST
from mutants_of_device import MUTANTS as OF_DEVICE
from mutants_of_hub import MUTANTS as OF_HUB
from mutants_of_hybrid import MUTANTS as OF_HYBRID
from mutants_of_labels import MUTANTS as OF_LABELS
from mutants_of_limits import MUTANTS as OF_LIMITS
from mutants_of_serving import MUTANTS as OF_SERVING
from mutants_of_shadow import MUTANTS as OF_SHADOW
from mutants_of_sites import MUTANTS as OF_SITES
from mutants_of_tasks import MUTANTS as OF_TASKS
from mutants_of_truth import MUTANTS as OF_TRUTH

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out" / "mutants.json"
CHILD_S = 300
MUTANTS: tuple[Mutant, ...] = (
    *OF_HUB, *OF_DEVICE, *OF_BAKE, *OF_TRUTH, *OF_CLASSES, *OF_SITES, *OF_LIMITS,
    *OF_CLIENTS, *OF_TASKS, *OF_LABELS, *OF_COST, *OF_HYBRID, *OF_SERVING, *OF_SHADOW,
)  # fmt: skip


def main(names: list[str]) -> int:
    known = {mutant.name for mutant in MUTANTS}
    if unknown := [name for name in names if name not in known]:
        print(f"no mutant is named {', '.join(unknown)}; the names are:", file=sys.stderr)
        print(*sorted(known), sep="\n", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 1)) as pool:
        targets = sorted({target for mutant in chosen for target in mutant.trials})
        for wrong in pool.map(_control, targets):
            if wrong:
                raise SystemExit(f"the unchanged sources fail already: {wrong}")
        caught_by = list(pool.map(trial, chosen))
    width = max(len(mutant.name) for mutant in chosen)
    for mutant, caught in zip(chosen, caught_by, strict=True):
        print(f"{mutant.name.ljust(width)}  {mutant.file.ljust(20)}  {caught or 'LIVES'}")
    caught_count = sum(bool(caught) for caught in caught_by)
    result = {
        "planted": len(chosen),
        "caught": caught_count,
        "mutants": [
            {"name": mutant.name, "file": mutant.file, "caught_by": caught}
            for mutant, caught in zip(chosen, caught_by, strict=True)
        ],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"planted": len(chosen), "caught": caught_count}))
    return 0 if caught_count == len(chosen) else 1


def trial(mutant: Mutant) -> str:
    """The check that caught the mutant. Empty if none did.

    Raises SystemExit if the mutant's line is not in the sources exactly once.
    """
    with tempfile.TemporaryDirectory(prefix="edgefleet-mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(
            ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "static")
        )
        for file, old, new in mutant.changes:
            path = source / "edgefleet" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise SystemExit(
                    f"{mutant.name}: `old` is in {file} {text.count(old)} times, not once"
                )
            path.write_text(text.replace(old, new))
        for target in mutant.trials:
            caught = _caught_by(target, source, mutant.checker)
            if caught:
                return caught
    return ""


def _control(target: str) -> str:
    """The failure of a trial on the unchanged sources, which must be empty."""
    return _caught_by(target, ROOT / "src")


def _caught_by(target: str, source: Path, checker: str = "") -> str:
    is_test = target.startswith("tests")
    return _tested(target, source) if is_test else _ran(target, source, checker)


def _ran(target: str, source: Path, checker: str) -> str:
    """The checkers that reported a violation in a simulation on ``source``.

    Empty if ``checker`` is named and is not among them.
    """
    scenario, _, devices = target.partition("/")
    ended = _child(["-c", _PLAY, scenario, devices], source)
    if ended.returncode and checker:
        return ""
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["?"]
        return f"{target}: {last[0][:60]}"
    said = json.loads(ended.stdout.strip().splitlines()[-1])
    if checker:
        return f"{target}: checker {checker}" if checker in said["checkers"] else ""
    if said["checkers"]:
        return f"{target}: checker {', '.join(sorted(said['checkers']))}"
    return "" if said["expected"] else f"{target}: it ends {said['verdict']}"


def _tested(target: str, source: Path) -> str:
    ended = _child(["-m", "pytest", "-q", "-x", "-p", "no:xdist", target], source)
    if ended.returncode == 0:
        return ""
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    if not failed:
        raise SystemExit(f"{target} did not run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return failed[0].removeprefix("FAILED ").split(" - ")[0]


def _child(arguments: list[str], source: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )


_PLAY = """
import json, sys
from edgefleet.sim.virtual import scenario
from edgefleet.sim.virtual.run import Run
name, devices = sys.argv[1], int(sys.argv[2])
played = scenario.load(name)
result = Run(played, name=name, devices=devices, seed=7).play()
expected = not played.expect or result.verdict in played.expect
print(json.dumps({
    "checkers": result.by_checker, "verdict": result.verdict,
    "expected": expected and result.finished,
}))
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
