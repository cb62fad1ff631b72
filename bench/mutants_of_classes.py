"""The planted bugs of the classes of devices."""

from mutant import Mutant

_TESTS = ("tests/rollout/test_classes.py",)

MUTANTS = (
    Mutant(
        "the alpha of the classes is not divided",
        "rollout/evidence/class_test.py",
        "alphas.CLASSES.log_bar(spec, max(1, evidence.class_count))",
        "alphas.CLASSES.log_bar(spec)",
        ("tests/rollout/test_class_test.py",),
    ),
    Mutant(
        "a class that gave the release back is forgotten after a restart",
        "rollout/engine.py",
        "        active = ActiveRollout(state, release,",
        "        import msgspec\n"
        "        state = msgspec.structs.replace(state, taken_back=())\n"
        "        active = ActiveRollout(state, release,",
        _TESTS,
    ),
    Mutant(
        "the counts of the classes begin anew after a restart",
        "rollout/evidence/tally.py",
        "        rows = self._ledger.reported_rows\n",
        "        rows = self._ledger.reported_rows[:0]\n",
        _TESTS,
    ),
    Mutant(
        "the places of a class are ignored",
        "rollout/evidence/tally.py",
        "            if number and self._free_places(offset + number, spec) <= 0:\n",
        "            if number and self._free_places(offset + number, spec) <= -1000:\n",
        _TESTS,
    ),
    Mutant(
        "a batch ignores the places of a class",
        "rollout/evidence/tally.py",
        "                if count > most:\n",
        "                if count > most + 1000:\n",
        _TESTS,
    ),
    Mutant(
        "a reserved place does not count in its class",
        "rollout/evidence/tally.py",
        "        return self._counts[_TRIAL][place] + self._reserved[place]\n",
        "        return self._counts[_TRIAL][place]\n",
        _TESTS,
    ),
    Mutant(
        "a class goes back alone although the others fail, too",
        "rollout/withdrawal.py",
        "        if found is None or not class_test.fails_alone(evidence, spec, found):\n",
        "        if found is None:\n",
        _TESTS,
    ),
    Mutant(
        "a class that gave the release back still counts in the tests of the others",
        "rollout/evidence/tally.py",
        "        return self._ledger.count(standing) - self.out[standing]\n",
        "        return self._ledger.count(standing)\n",
        _TESTS,
    ),
    Mutant(
        "a class that gave the release back is offered it again",
        "rollout/active.py",
        "        if self.takes_back_part(row):\n            return False\n",
        "",
        ("class_fails/1000", *_TESTS),
    ),
    Mutant(
        "the counts of a class do not follow a device that changes its labels",
        "rollout/evidence/tally.py",
        "        if timed or (self._keys and facts_version != self._facts):\n",
        "        if timed:\n",
        _TESTS,
    ),
    Mutant(
        "a failure in a class that gave the release back is the fault of the device",
        "rollout/constraints/quarantine.py",
        "        return parts is None or not parts.has(row)\n",
        "        return True\n",
        _TESTS,
    ),
)
