"""The device agent: a pure core that decides everything, and a shell that does its effects.

**The core** is ``step.step(state, event, now) -> (state, effects)``. ``state`` is all that the
agent knows (``state.AgentState``), events are what happened (``event``), effects what shall be
done (``effect``). All are plain data, so the real shell (``loop``), the simulator and the tests
drive the same core. ``table`` holds the stages of an attempt. Modules of the core: ``state table
event effect changes step_context step boot attempt switch trial report telemetry quality_window
spool limits``. They know no clock, disk, network or chance: time comes in as ``now``, chance as
the ``draw`` of an event.

**The rule** for who drives it, for each event in its turn::

    state, effects = step(state, event, now)
    storage.write("state.json", to_store(state))    # when its bytes changed: save first ...
    for effect in effects:                           # ... then do, in order
        do(effect)                                   # each may bring forth an event, later

An effect that is done before the state is saved can be done again by an agent that does not know of
it; the crash sweep in tests/agent shows what that breaks. Effects may be repeated: after a crash
``Booted`` says what was found (which slots are whole, what serves, what the pointer says) and the
core asks again for what its state still wants. So a driver keeps nothing of its own but what it is
doing right now.

Long effects (FetchManifest, Fetch, Prove, Activate) carry a ``job`` number that their completing
event repeats; the core ignores the completion of a job that it no longer waits for. At most one
fetch or proof is wanted at a time; a newer Activate replaces an older one. SetTimer is the last
effect of every step and replaces the timer before it.

**A device's life** begins with ``AgentState()`` (or ``from_store``), then ``Booted``. The first
check-in goes out when the timer says so. Enrolment is the driver's: it comes before all this.
"""
