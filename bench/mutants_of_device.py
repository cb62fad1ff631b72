"""The planted bugs of the agent core and of the serving process."""

from mutant import Mutant

CUTS = "tests/agent/test_crash_models.py"
ON_A_DEVICE = "tests/journey/test_three_models.py::test_"
CRASH = (
    f"{ON_A_DEVICE}two_bad_releases_of_three_models_are_rolled_back_and_no_request_fails[segfault]"
)
HANG_CORE = "tests/agent/test_hang_core.py"
HANG_SERVING = "tests/serving/test_hang.py"
SWAPS = (
    f"{HANG_SERVING}::test_a_swap_ends_a_release_that_hangs_"
    "and_its_clients_are_answered_by_the_next"
)
KILLS = f"{ON_A_DEVICE}after_a_kill_in_each_phase_every_model_has_a_release_that_was_asked_for"

MUTANTS = (
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
        ("tests/agent/test_spool.py",),
    ),
    Mutant(
        "a device that failed its trial keeps the release",
        "agent/activation.py",
        "if attempt is not None and state.stage in IN_TRIAL and not waits:",
        "if attempt is not None and state.stage in IN_TRIAL | {_REVERTING}:",
        ("bad/3000", "storm/600"),
    ),
    Mutant(
        "a device tries a failed release for ever",
        "agent/boot.py",
        "attempt.tries >= attempt.max_attempts",
        "attempt.tries >= 1000",
        ("tests/agent/test_invariants.py",),
    ),
    Mutant(
        "the trial is loaded in the shared process",
        "serving/model_host.py",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=True)",
        "trial = await self._load(wanted.model, wanted.trial, in_worker=False)",
        ("tests/serving/test_worker.py",),
    ),
    Mutant(
        "the memory of the process is held against one model",
        "serving/model_host.py",
        "        return release.memory_kib()\n",
        "        return memory_kib()\n",
        ("tests/serving/test_worker.py::test_memory_of_small_model_is_its_own",),
    ),
    Mutant(
        "a room for a body is given twice",
        "serving/body_memory.py",
        "            start = end\n",
        "            start = min(end, other)\n",
        ("tests/serving/test_body_memory.py",),
    ),
    Mutant(
        "the memory that a worker writes its answer to is freed",
        "serving/onnx_runtime.py",
        "        self._kept = (*inputs.values(), *outputs.values())\n",
        "        self._kept = ()\n",
        ("tests/serving/test_body_memory.py",),
    ),
    Mutant(
        "an answer has the shape of the one before",
        "serving/worker_loop.py",
        "                plan.run, plan.fixed = None, False\n",
        "                self._channel.send(RUN_COST.pack(0, 0) + plan.made)\n"
        "                return\n",
        ("tests/serving/test_body_memory.py",),
    ),
    Mutant(
        "the thread that runs the model keeps the low priority of the load",
        "serving/worker.py",
        "    loader.start()\n    loader.join()",
        "    begin()",
        ("tests/serving/test_worker_process.py",),
    ),
    Mutant(
        "any new pid is the trial's fault",
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
        "two trials at once",
        "agent/before_trial.py",
        "if is_admitted and is_wanted and not _is_trial_taken(context.device):",
        "if is_admitted and is_wanted:",
        ("three_models/400",),
        checker="one_trial",
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
        "        for name in sorted(models)\n        if (\n            found := _wanted(",
        "        for name in [one for one in models if models[one].stage is _REVERTING] or models\n"
        "        if (\n            found := _wanted(",
        ("three_models/60",),
        checker="neighbour_untouched",
    ),
    Mutant(
        "a failed trial takes a neighbour's release back",
        "agent/activation.py",
        "    context.device.forgettable(switch_failures=0)\n"
        "    request_apply(context.device)\n\n\n"
        "def on_activated",
        "    for name in context.device.models:\n"
        "        mine = context.device.model(name)\n"
        '        back = "b" if mine.state.active == "a" else "a"\n'
        "        if name != context.model and slot(mine.state, back).confirmed:\n"
        "            mine.keep(active=back)\n"
        "    context.device.do(MovePointer(slots=pointer(context.device.models)))\n"
        "    context.device.forgettable(switch_failures=0)\n"
        "    request_apply(context.device)\n\n\n"
        "def on_activated",
        ("three_models/60",),
        checker="neighbour_untouched",
    ),
    Mutant(
        "two pointer files",
        "agent/slots.py",
        "        text = pointer_text(slots)\n"
        "        if not slots:\n"
        "            self._pointer_file.remove()\n"
        "        elif not self._pointer_file.is_intact(text):\n"
        "            self._write(self._pointer_file, text)\n",
        "        for model, name in slots.items():\n"
        '            file = OwnFile(self.storage, f"{MODELS}/{model}/{POINTER}")\n'
        "            self._write(file, pointer_text({model: name}))\n",
        (f"{CUTS}::test_two_models_that_are_switched_together_are_never_mixed",),
        also=(
            (
                "agent/slots.py",
                "return read_pointer(self.pointer_content())",
                (
                    "return read_pointer(\n"
                    '            b"".join(\n'
                    '                self.storage.read(f"{MODELS}/{model}/{POINTER}") or b""\n'
                    "                for model in self.storage.list(MODELS)\n"
                    "            )\n"
                    "        )"
                ),
            ),
        ),
    ),
    Mutant(
        "a start is asked for beside a trial",
        "agent/arbiter.py",
        "is_free = not any(unit.in_trial or unit.goes_back for unit in units)",
        "is_free = True",
        ("tests/agent/test_arbiter.py",),
    ),
    Mutant(
        "the disk is taken model by model",
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
        "a model that goes back waits for the link",
        "agent/arbiter.py",
        "    for unit in sorted(units, key=lambda unit: (not unit.returns, unit is not holder)):\n"
        "        members = [\n",
        "    for unit in sorted(units, key=lambda unit: unit is not holder):\n"
        "        members = [\n",
        ("tests/agent/test_models.py",),
    ),
    Mutant(
        "a serving process with another control API is kept",
        "agent/supervisor.py",
        "            check_control_api(version.api)\n",
        "",
        ("tests/agent/test_supervisor.py",),
    ),
    Mutant(
        "a model in a process of its own is not reported",
        "agent/isolation.py",
        "device.keep(facts=replace(facts, isolated=crashes.isolated), facts_known=False)",
        "device.keep(facts=replace(facts, isolated=crashes.isolated))",
        ("tests/agent/test_isolation.py",),
    ),
    Mutant(
        "an answer acknowledges facts that are newer than its check-in",
        "agent/checkin.py",
        "has_facts = sent.facts is not None and sent.facts == state.facts",
        "has_facts = sent.facts is not None",
        ("tests/agent/test_isolation.py",),
    ),
    Mutant(
        "the age of the oldest request is ignored",
        "agent/trial.py",
        "    if age_s > limit_s:\n",
        "    if age_s > 1e9:\n",
        (HANG_CORE,),
    ),
    Mutant(
        "a confirmed release that hangs is left alone",
        "agent/hang.py",
        "        and own.stats.oldest_in_flight_s > limit_s(own.stats.latency_us_p95)\n",
        "        and own.stats.oldest_in_flight_s > 1e9\n",
        (HANG_CORE,),
    ),
    Mutant(
        "a release is confirmed without an answer",
        "agent/trial.py",
        "        and _has_answered(attempt, watch, mine, now)\n",
        "",
        ("answers_nothing/600", HANG_CORE),
    ),
    Mutant(
        "the good release is blamed for the one that hangs",
        "agent/activation.py",
        '        elif context.attempt.action == "revert":\n            continue',
        '        elif context.attempt.action == "revert":\n'
        "            go_back(context, event.reason, event.detail)\n            continue",
        (HANG_CORE,),
    ),
    Mutant(
        "the release that the device leaves isolates the next one",
        "agent/isolation.py",
        "blamed = [model for model in ran if not _is_left(device, model)]",
        "blamed = list(ran)",
        (HANG_CORE,),
    ),
    Mutant(
        "a request without an answer is not counted",
        "agent/isolation.py",
        "    for model in ran:\n        _count_failed(device, model)\n",
        "",
        (HANG_CORE,),
    ),
    Mutant(
        "a swap waits for a request without a bound",
        "serving/active_release.py",
        "await asyncio.wait_for(idle.wait(), max(0.0, patience_s - stats.oldest_in_flight_s()))",
        "await idle.wait()",
        (SWAPS,),
    ),
    Mutant(
        "an Apply is waited for without a bound",
        "agent/supervisor.py",
        "        while missed < limits.MISSED_PROBES:\n",
        "        while True:\n",
        ("tests/agent/test_supervisor.py",),
    ),
    Mutant(
        "SIGTERM waits for the model on the event loop",
        "serving/server.py",
        "    ending.start()\n",
        "",
        (f"{HANG_SERVING}::test_sigterm_is_obeyed_whatever_a_model_does",),
    ),
    Mutant(
        "only a full list names the rollouts",
        "agent/checkin.py",
        "given=_given(device.models, changed) if changed else (),",
        "given=_given(device.models, changed) if soft.known is None else (),",
        ("tests/agent/test_models.py",),
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
)
