"""The device agent: a pure core that decides, and a shell that executes the core's effects.

**The core** is ``step.step(state, event, now) -> (state, effects)``. ``state.AgentState`` is all
that the agent knows, ``event`` defines inputs and ``effect`` defines actions. All are plain data,
so the real shell (``loop``), the simulator and the tests run the same core. ``table`` has the
stages of an attempt. Modules of the core: ``state table event effect typed_replace stored
step_context step boot before_trial shadow_phase shadow activation incumbent trial hang isolation
error_rate two_samples load cost_figures cost_window cost_trial serving_health serving_version
arbiter units checkin labels telemetry quality_window sketch_math spool limits``. They use no clock,
disk, network or random generator: time is the parameter ``now``, and a random number is the
``draw`` of an event.

**Each model has a core of its own**: a ``ModelState``, and handlers that see it through a
``StepContext``. The check-ins, the serving process and the spool, which all models share, are in
``AgentState`` and ``DeviceContext``. At the end of each step the ``arbiter`` decides which model
may use the link, the disk, the prover and the trial next.

**A driver** does this for each event, in order::

    state, effects = step(state, event, now)
    storage.write("state.json", to_store(state))    # if its bytes changed: save first ...
    for effect in effects:                           # ... then execute, in order
        do(effect)                                   # each may cause a later event

If an effect were executed before the state is saved, a crash in between would leave no record of
the effect; the crash sweep in tests/agent shows the consequences. Effects are idempotent: after a
crash ``Booted`` reports the intact slots, the serving process and the pointer file, and the core
requests again the effects that its state still needs. A driver therefore keeps no state of its own
except the work in progress.

Long effects (FetchManifest, Fetch, Prove, Apply) have a ``job`` number, which their completing
event repeats. The core ignores the completion of a job for which it no longer waits. At most one
download and one proof are in progress at a time, of one or two models; a newer Apply replaces an
older one. SetTimer is the last effect of every step and replaces the previous timer.

**A device starts** with ``AgentState()`` (or ``from_store``), then ``Booted``. The first check-in
is sent when the timer fires. The driver enrols the device before its first step.
"""
