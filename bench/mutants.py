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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out" / "mutants.json"
CHILD_S = 300


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``. ``trials`` are scenario/devices, or paths of tests.

    ``also`` has further changes (file, old, new), where a second line guards against the bug.
    """

    name: str
    file: str
    old: str
    new: str
    trials: tuple[str, ...]
    also: tuple[tuple[str, str, str], ...] = ()


ON_A_DEVICE = "tests/journey/test_three_models.py::test_"
CRASH = (
    f"{ON_A_DEVICE}two_bad_releases_of_three_models_are_rolled_back_and_no_request_fails[segfault]"
)
KILLS = f"{ON_A_DEVICE}after_a_kill_in_each_phase_every_model_has_a_release_that_was_asked_for"

MUTANTS = (
    Mutant(
        "a check-in is answered before its reports are recorded",
        "rollout/checkin.py",
        "        for outcome in fresh\n",
        "        for outcome in tuple(fresh)[:0]\n",
        ("good/300", "tests/rollout/test_checkin.py"),
    ),
    Mutant(
        "a table of answers outlives the numbers of the release sets",
        "rollout/fleet/device_models.py",
        "            self._forget_numbers()\n            if number is not None",
        "            if number is not None",
        ("tests/rollout/test_device_models.py",),
    ),
    Mutant(
        "a device goes back to a release of a neighbour's model",
        "rollout/desired.py",
        "(*self._giving.get(active.model, ()), active)",
        "(*sum(self._giving.values(), ()), active)",
        ("tests/rollout/test_several_models.py",),
    ),
    Mutant(
        "the digest of a device is never compared",
        "rollout/checkin.py",
        "if check_in.protocol > ONE_MODEL and engine.fleet.models.digest_differs(",
        "if False and engine.fleet.models.digest_differs(",
        ("tests/rollout/test_several_models.py", "tests/hub/test_several_models.py"),
    ),
    Mutant(
        "a heartbeat has all fields",
        "protocol/device.py",
        "class CheckIn(Wire, frozen=True, kw_only=True, omit_defaults=True):",
        "class CheckIn(Wire, frozen=True, kw_only=True):",
        ("tests/protocol/test_wire.py",),
    ),
    Mutant(
        "a device tries two releases at once",
        "rollout/constraints/other_trial.py",
        "return self._other(model, row) is not None or self._busy(model, row) is not None",
        "return False",
        ("tests/rollout/test_several_models.py",),
    ),
    Mutant(
        "a store that fails keeps the places",
        "rollout/checkin.py",
        "    for outcome in pending.reserved:\n        engine.admission.free(",
        "    for outcome in pending.reserved[:0]:\n        engine.admission.free(",
        ("tests/rollout/test_checkin.py",),
    ),
    Mutant(
        "a report is counted twice",
        "rollout/evidence/ledger.py",
        "self.counts[standing] += 1",
        "self.counts[standing] += 2",
        ("good/300",),
    ),
    Mutant(
        "a repeated report counts again",
        "rollout/evidence/ledger.py",
        "if not was_exposed:",
        "if True:",
        ("good/300",),
    ),
    Mutant(
        "the cut is off by one",
        "rollout/fleet/cut.py",
        "np.partition(places, count - 1)[count - 1]) + 1",
        "np.partition(places, count - 1)[count - 1])",
        ("good/300",),
    ),
    Mutant(
        "soak is ignored",
        "rollout/evidence/gate.py",
        "if passing_s >= spec.soak_s:",
        "if passing_s >= 0:",
        ("long_soak/300",),
    ),
    Mutant(
        "a revert says it is done while devices still run it",
        "rollout/engine.py",
        "if len(owing.online) and now",
        "if False and now",
        ("by_hand/600",),
    ),
    Mutant(
        "a revert leaves those that confirmed",
        "rollout/active.py",
        "if not self.reach or standing in EXCLUDED:",
        "if 2 in running or not self.reach or standing in EXCLUDED:",
        ("by_hand/600", "bad/3000"),
    ),
    Mutant(
        "offline counts as healthy",
        "rollout/census.py",
        "healthy=counts[DeviceStanding.HEALTHY] + already,",
        "healthy=counts[DeviceStanding.HEALTHY] + already + found.offline.count,",
        ("third_offline/600",),
    ),
    Mutant(
        "silence after activation is forgotten",
        "rollout/census.py",
        "silent = fleet.silent_longer(trial, now, active.state.spec.gate.silence_s)",
        "silent = fleet.silent_longer(trial, now, 1e9)",
        ("bricks/3000",),
    ),
    Mutant(
        "a failed release is offered again",
        "rollout/evidence/ledger.py",
        "{DeviceStanding.REFUSED, DeviceStanding.REVERTED, DeviceStanding.FAILED}",
        "{DeviceStanding.REFUSED, DeviceStanding.REVERTED}",
        ("storm/600",),
    ),
    Mutant(
        "what failed in one rollout is offered by the next",
        "rollout/desired.py",
        "return len(rollouts) > 1 and any(",
        "return len(rollouts) > 99 and any(",
        ("tests/rollout/test_desired.py", "tests/rollout/test_whole_rollouts.py"),
    ),
    Mutant(
        "a newcomer is placed by its arrival",
        "rollout/fleet/scope.py",
        "            if row < part.rows:\n",
        "            if row >= part.rows:\n                return place\n            if True:\n",
        ("newcomers/2000",),
    ),
    Mutant(
        "exposure is exceeded by one",
        "rollout/constraints/reservations.py",
        "if in_trial >= allowed:",
        "if in_trial > allowed:",
        ("good/300",),
    ),
    Mutant(
        "of many that ask at once, one too many may start",
        "rollout/admission/control.py",
        "free = max(0, allowed(active) - active.in_trial)",
        "free = max(0, allowed(active) - active.in_trial) + 1",
        ("good/3000", "tests/rollout/test_batch.py"),
    ),
    Mutant(
        "of many that report at once, the first is not counted",
        "rollout/evidence/ledger.py",
        "        self._activations += len(exposed)\n",
        "        self._activations += len(exposed)\n        self.exposed -= 1\n",
        ("good/3000",),
    ),
    Mutant(
        "an agent that is too old is offered a release",
        "rollout/fleet/eligibility.py",
        "return protocol != NOT_REPORTED and not is_served(protocol)",
        "return False",
        ("tests/rollout/test_skew.py",),
    ),
    Mutant(
        "the byte rate is ignored where many check in at once",
        "rollout/batch.py",
        "if self._admission.limits_bytes or self._desired",
        "if self._desired",
        ("tests/rollout/test_batch.py",),
    ),
    Mutant(
        "overdue devices do not hold growth back",
        "rollout/admission/control.py",
        "    suspect = overdue.suspect\n",
        "    suspect = False\n",
        ("tests/rollout/test_overdue.py",),
    ),
    Mutant(
        "a budget is exceeded by one",
        "rollout/constraints/label_budget.py",
        "self.in_use(spec.label, value) >= spec.max_in_trial:",
        "self.in_use(spec.label, value) > spec.max_in_trial:",
        ("windows_and_budgets/600",),
    ),
    Mutant(
        "a budget forgets who is in trial in other rollouts",
        "rollout/constraints/label_budget.py",
        "for rows in self._in_trial.values():",
        "for rows in tuple(self._in_trial.values())[-1:]:",
        ("tests/rollout/test_side_by_side.py",),
    ),
    Mutant(
        "bytes that other rollouts offer are not counted",
        "rollout/admission/downloads.py",
        "if active.reservations.begin_download(row):",
        "if active.reservations.begin_download(row) and active.state.spec.pace.bytes_per_s:",
        ("tests/rollout/test_side_by_side.py",),
    ),
    Mutant(
        "a window is ignored",
        "rollout/constraints/reservations.py",
        "if self.hours.open(zone, now):",
        "if True:",
        ("windows_and_budgets/600",),
    ),
    Mutant(
        "a freeze is ignored",
        "rollout/constraints/reservations.py",
        "if freeze.frozen:",
        "if False:",
        ("frozen/600",),
    ),
    Mutant(
        "an approval is not waited for",
        "rollout/constraints/reservations.py",
        "if state.spec.approval.people and (people",
        "if False and (people",
        ("approved/600",),
    ),
    Mutant(
        "the pace is exceeded by one",
        "rollout/constraints/pace.py",
        "return max(0, self.most - len(self._at))",
        "return max(0, self.most + 1 - len(self._at))",
        ("paced/600",),
    ),
    Mutant(
        "a halted rollout goes on exposing",
        "rollout/active.py",
        "exposes = status is _RUNNING or",
        "exposes = True or",
        ("halted/600",),
    ),
    Mutant(
        "the gate peeks naively",
        "rollout/evidence/sequential.py",
        "def log_rate_evidence(",
        "def log_rate_evidence(bad: int, size: int, limit: float) -> float:\n"
        "    return 99.0 if size >= 5 and bad > limit * size else -1.0\n\n\n"
        "def _log_rate_evidence(",
        ("tests/rollout/test_gate.py", "tests/rollout/test_sequential.py"),
    ),
    Mutant(
        "a start is not waited for",
        "agent/before_trial.py",
        "if is_admitted and is_wanted and not _is_trial_taken(",
        "if is_wanted and not _is_trial_taken(",
        ("rough_links/600", "good/300"),
    ),
    Mutant(
        "a crash between two effects doubles a report",
        "agent/spool.py",
        'identity = f"{attempt.rollout}/{attempt.number}/{kind}"',
        'identity = f"{attempt.rollout}/{attempt.number}/{kind}/{int(at)}"',
        ("rough_links/600", "power_cuts/2000", "tests/agent"),
    ),
    Mutant(
        "a device that failed its trial keeps the release",
        "agent/activation.py",
        "if attempt is not None and state.stage in IN_TRIAL:",
        "if attempt is not None and state.stage in IN_TRIAL | {_REVERTING}:",
        ("bad/3000", "storm/600"),
    ),
    Mutant(
        "a device tries a failed release for ever",
        "agent/boot.py",
        "attempt.tries >= attempt.max_attempts",
        "attempt.tries >= 1000",
        ("tests/agent/test_invariants.py", "tests/agent"),
    ),
    Mutant(
        "the trial is loaded in the shared process",
        "serving/model_host.py",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=True)",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=False)",
        ("tests/serving/test_worker.py",),
    ),
    Mutant(
        "the memory of the process is reported as the model's",
        "serving/model_host.py",
        "        return release.memory_kib()\n",
        "        return memory_kib()\n",
        ("tests/serving/test_worker.py",),
    ),
    Mutant(
        "any new process is the fault of the trial",
        "agent/trial.py",
        "status.pid != watch.start.pid):\n        return _never_healthy(attempt, watch, now) or",
        "status.pid != watch.start.pid):\n        return Sick(Reason.CRASH, str(status)) or",
        ("tests/agent/test_trial.py",),
    ),
    Mutant(
        "an outcome is forgotten when a check-in fails",
        "agent/checkin.py",
        "device.forgettable(sent=None, link_failures=failures + 1)",
        "device.forgettable(sent=None, link_failures=failures + 1)\n    device.keep(spool=())",
        ("rough_links/600", "hub_crashes/600"),
    ),
    Mutant(
        "two models are in trial at once",
        "agent/before_trial.py",
        "if is_admitted and is_wanted and not _is_trial_taken(context.device):",
        "if is_admitted and is_wanted:",
        ("tests/agent/test_models.py",),
    ),
    Mutant(
        "the hub and the device let two models try at once",
        "agent/before_trial.py",
        "if is_admitted and is_wanted and not _is_trial_taken(context.device):",
        "if is_admitted and is_wanted:",
        ("three_models/400",),
        also=(
            (
                "rollout/constraints/other_trial.py",
                "self.is_active = len(",
                "self.is_active = 1 > len(",
            ),
            (
                "agent/arbiter.py",
                "is_free = not any(unit.in_trial or unit.goes_back for unit in units)",
                "is_free = True",
            ),
        ),
    ),
    Mutant(
        "a model that fails its trial takes its neighbours with it",
        "agent/activation.py",
        "        for name in sorted(models)\n        if (found := _wanted(",
        "        for name in [one for one in models if models[one].stage is _REVERTING] or models\n"
        "        if (found := _wanted(",
        ("three_models/400",),
    ),
    Mutant(
        "a start is asked for beside a trial",
        "agent/arbiter.py",
        "is_free = not any(unit.in_trial or unit.goes_back for unit in units)",
        "is_free = True",
        ("tests/agent/test_arbiter.py",),
    ),
    Mutant(
        "room on the disk is reserved model by model",
        "agent/arbiter.py",
        "needed = sum(member.needs_bytes for member in unit.members)",
        "needed = unit.members[-1].needs_bytes",
        ("tests/agent/test_arbiter.py",),
    ),
    Mutant(
        "the pointer moves when the trial starts",
        "agent/activation.py",
        "    context.move(Signal.ACTIVATED)\n",
        "    context.move(Signal.ACTIVATED)\n"
        "    slots = pointer(context.device.models) | {context.model: context.attempt.slot}\n"
        "    context.device.do(MovePointer(slots=slots))\n",
        ("tests/agent/test_crash_models.py",),
    ),
    Mutant(
        "on a device: the trial is loaded in the shared process",
        "serving/model_host.py",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=True)",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=False)",
        (CRASH,),
    ),
    Mutant(
        "on a device: a crash is blamed on the model that waits for its trial",
        "agent/checkin.py",
        "    new = spool.outcome(context.attempt, kind,",
        "    named = [one.attempt for one in device.models.values() if one.attempt is not None]\n"
        "    blamed = named[-1] if kind is OutcomeKind.TRIAL_FAILED else context.attempt\n"
        "    new = spool.outcome(blamed, kind,",
        (CRASH,),
    ),
    Mutant(
        "on a device: the pointer moves when the trial starts",
        "agent/activation.py",
        "    context.move(Signal.ACTIVATED)\n",
        "    context.move(Signal.ACTIVATED)\n"
        "    slots = pointer(context.device.models) | {context.model: context.attempt.slot}\n"
        "    context.device.do(MovePointer(slots=slots))\n",
        (KILLS,),
    ),
    Mutant(
        "a model that goes back waits for the link",
        "agent/arbiter.py",
        "    for unit in sorted(units, key=lambda unit: (not unit.returns, unit is not holder)):\n"
        "        members = [\n",
        "    for unit in sorted(units, key=lambda unit: unit is not holder):\n"
        "        members = [\n",
        ("tests/agent/test_models.py",),
    ),
)


def main(names: list[str]) -> int:
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
        for file, old, new in ((mutant.file, mutant.old, mutant.new), *mutant.also):
            path = source / "edgefleet" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise SystemExit(
                    f"{mutant.name}: `old` is in {file} {text.count(old)} times, not once"
                )
            path.write_text(text.replace(old, new))
        for target in mutant.trials:
            caught = _caught_by(target, source)
            if caught:
                return caught
    return ""


def _control(target: str) -> str:
    """The failure of a trial on the unchanged sources, which must be empty."""
    return _caught_by(target, ROOT / "src")


def _caught_by(target: str, source: Path) -> str:
    return _tested(target, source) if target.startswith("tests") else _ran(target, source)


def _ran(target: str, source: Path) -> str:
    """The checkers that reported a violation in a simulation on ``source``."""
    scenario, _, devices = target.partition("/")
    ended = _child(["-c", _PLAY, scenario, devices], source)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["?"]
        return f"{target}: {last[0][:60]}"
    said = json.loads(ended.stdout.strip().splitlines()[-1])
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
