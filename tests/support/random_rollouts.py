"""Random rollouts and reports, for what must hold after any of them."""

import random

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import Verb
from edgefleet.testing import MemoryHub
from support.plans import MODEL, outcome, spec

DEVICES = 60
SITES = ("s0", "s1", "s2")


def live(hub: MemoryHub, chance: random.Random) -> None:
    """Random rollouts, reports, labels and kits. Reports may come from devices of other sites."""
    fleet = hub.engine.fleet
    hub.now += 1
    row = chance.randrange(DEVICES)
    match chance.randrange(8):
        case 0:
            site = chance.choice(["", "site=s0", "site=s1", "site!=s2"])
            try:
                hub.start(spec(chance.choice("123"), 50, 100, selector=site))
            except OperatorError:
                return
        case 1 | 2 if hub.engine.states():
            try:
                hub.command(chance.choice(hub.engine.states()).id, chance.choice(list(Verb)))
            except OperatorError:
                return
        case 3:
            fleet.set_labels(row, {"site": chance.choice(SITES)})
        case 4:
            profile = chance.choice(("generic_x86", "other"))
            fleet.set_facts(row, profile, fleet.labels(row))
        case _ if hub.engine.states():
            state = chance.choice(hub.engine.states())
            kind = chance.choice(list(OutcomeKind))
            said = outcome(state.id, state.spec.release, kind)
            if chance.random() < 0.3:
                rows = np.array(sorted(chance.sample(range(DEVICES), 9)))
                hub.engine.batch.record(rows, said, hub.now)
            else:
                hub.engine.intake.record(row, said, hub.now)
            running = chance.choice("123")
            fleet.observe(row, hub.now, model=MODEL, release=running, phase=Phase.IDLE)
        case _:
            return
