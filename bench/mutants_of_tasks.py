"""The planted bugs of tasks, comparisons, interfaces and facts of runtimes."""

from mutant import Mutant

MUTANTS = (
    Mutant(
        "a value that is no number is near to every value",
        "serving/comparisons.py",
        "np.asarray(np.isfinite(one) & (np.abs(one - other) <= limit))",
        "np.asarray(~(np.abs(one - other) > limit))",
        ("tests/serving/test_comparisons.py",),
    ),
    Mutant(
        "one near value makes the whole case right",
        "serving/comparisons.py",
        "near.all(axis=1)",
        "near.any(axis=1)",
        ("tests/serving/test_comparisons.py",),
    ),
    Mutant(
        "a box that is found twice counts twice",
        "serving/average_precision.py",
        "                taken[best] = True\n",
        "                pass\n",
        ("tests/serving/test_comparisons.py",),
    ),
    Mutant(
        "invented boxes of a class that no case wants are forgiven",
        "serving/average_precision.py",
        "for one in (*truth, *sure) for number",
        "for one in truth for number",
        ("tests/serving/test_comparisons.py",),
    ),
    Mutant(
        "a proof without truth passes a release that requires accuracy",
        "serving/prove.py",
        "        if least <= 0:\n",
        "        if least <= 1:\n",
        ("tests/serving/test_prove.py",),
    ),
    Mutant(
        "an output that does not grow with the batch is proved",
        "serving/prove.py",
        "if answer.ndim == 0 or len(answer) < count:",
        "if answer.ndim == 0:",
        ("tests/optimize/test_proved_before.py",),
    ),
    Mutant(
        "a classifier of one class is right in each case",
        "serving/release_rules.py",
        "    if spec.shape[1] == 1:\n",
        "    if spec.shape[1] == 0:\n",
        ("tests/optimize/test_tasks.py",),
    ),
    Mutant(
        "one file has two precisions",
        "serving/release_rules.py",
        "if first.precision != variant.precision:",
        "if first.profile == variant.profile:",
        ("tests/optimize/test_tasks.py",),
    ),
    Mutant(
        "a model that is no better than a constant makes a golden set",
        "optimize/new_release.py",
        "if not error < constant:",
        "if not error:",
        ("tests/cli/test_model_init.py",),
    ),
    Mutant(
        "a plan takes a release whose input has another name",
        "rollout/plan.py",
        "    if changes and not spec.changes_interface:\n",
        "    if False and changes:\n",
        ("tests/scripts/test_scripts.py",),
    ),
    Mutant(
        "a narrower input is no change of the interface",
        "protocol/interface.py",
        "elif not _accepts(new[name], old[name]):",
        "elif not _accepts(old[name], new[name]):",
        ("tests/protocol/test_interface.py",),
    ),
    Mutant(
        "a device is offered a release that its runtime cannot load",
        "rollout/fleet/eligibility.py",
        "return bool(_numbers(version)) and _numbers(version) < _numbers(least)",
        "return bool(version) and version < least",
        ("tests/rollout/test_runtime_facts.py",),
    ),
    Mutant(
        "an older agent is offered a release that it cannot prove",
        "rollout/fleet/eligibility.py",
        "if comparison and comparison not in kit.comparisons:",
        "if comparison and kit.comparisons and comparison not in kit.comparisons:",
        ("tests/rollout/test_runtime_facts.py",),
    ),
    Mutant(
        "the end of a long error is cut off",
        "base/texts.py",
        "    head = (chars - len(_MIDDLE)) // 3\n",
        "    return text[:chars]\n    head = 0\n",
        ("tests/serving/test_causes.py",),
    ),
)
