"""The planted bugs of late labels: on the device, on the way, and in the gate."""

from mutant import Mutant

_SERVING = ("tests/serving/test_labels.py",)
_ENGINE = "tests/rollout/test_labels.py"

MUTANTS = (
    Mutant(
        "a label counts for the release that is active now",
        "serving/answers.py",
        "counts = self._counts_of(self._names[self._releases[place]])",
        "counts = self._counts_of(self._names[-1])",
        _SERVING,
    ),
    Mutant(
        "a late label of the previous release counts for the new one",
        "rollout/evidence/labels.py",
        "names = {release: _CANARY, previous: _CONTROL}",
        "names = {release: _CANARY, previous: _CONTROL if is_control else _CANARY}",
        (f"{_ENGINE}::test_labels_of_the_previous_release_count_for_it_also_after_the_switch",),
    ),
    Mutant(
        "an answer takes a second label",
        "serving/answers.py",
        "            if self._labelled[place]:\n                continue\n",
        "",
        _SERVING,
    ),
    Mutant(
        "counters that arrive twice count twice",
        "rollout/evidence/labels.py",
        "grown = labelled - before[0]",
        "grown = labelled",
        (f"{_ENGINE}::test_a_report_that_arrives_twice_counts_once",),
    ),
    Mutant(
        "labels count again after a restart of the hub",
        "rollout/evidence/labels.py",
        "if grown <= 0 or (is_first and self._is_resumed):",
        "if grown <= 0:",
        (f"{_ENGINE}::test_what_was_counted_before_a_restart_of_the_hub_does_not_count_again",),
    ),
    Mutant(
        "labels are ignored in the bake",
        "rollout/intake.py",
        "            if not started or not active.scope.eligible(row):\n                continue\n"
        "            found = next(",
        "            if not started or state.is_baking or not active.scope.eligible(row):\n"
        "                continue\n            found = next(",
        (f"{_ENGINE}::test_labels_that_come_after_the_last_wave_count_in_the_bake",),
    ),
    Mutant(
        "the gate does not read the labels",
        "rollout/evidence/gate.py",
        "if metric.of_labels and evidence.labels.is_shared:",
        "if metric.of_labels:",
        ("labels_late/150",),
    ),
    Mutant(
        "the control has no veto over labels",
        "rollout/evidence/labels.py",
        "return bet.mean > 0 and 2 * fell >= bet.mean",
        "return False",
        (f"{_ENGINE}::test_devices_that_became_worse_without_the_release_have_a_veto",),
    ),
    Mutant(
        "an id that names two requests labels one of them",
        "serving/answers.py",
        "one_request = len(places) and self._times[places[0]] == self._times[places[-1]]",
        "one_request, places = len(places), places[-1:]",
        _SERVING,
    ),
    Mutant(
        "an acknowledged label is sent again",
        "hub/truth.py",
        "while waiting and waiting[0].truth.number <= number:",
        "while waiting and waiting[0].truth.number < number:",
        ("tests/hub/test_truth.py",),
    ),
    Mutant(
        "labels are acknowledged before the serving process has them",
        "agent/labels.py",
        "        device.do(GiveTruth(truth=answer.truth))\n",
        "        device.do(GiveTruth(truth=answer.truth))\n"
        "        device.forgettable(truth_done=answer.truth[-1].number)\n",
        ("tests/agent/test_labels.py",),
    ),
)  # fmt: skip
