"""The initial state of a run: an enrolled fleet, and a completed rollout of each old release."""

import numpy as np

from edgefleet.protocol.device import CheckIn, ModelReport, Phase, digest
from edgefleet.protocol.rollout import RolloutSpec, Status
from edgefleet.protocol.version import ONE_MODEL, PROTOCOL
from edgefleet.rollout.lifecycle.state import RolloutState, WaveState
from edgefleet.sim.virtual import releases
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.scenario import MODEL, NEW, OLD

BASELINE = "ro-0"


def set_up(devices: Devices) -> None:
    """Enrol all devices, publish both releases of each model, and install the old ones."""
    environment = devices.environment
    hub, facts, start = environment.hub, environment.facts, environment.start
    for row in range(facts.devices):
        hub.enrol(facts.name(row), facts.device(row).profile, facts.labels(row))
    models = environment.scenario.models
    for model in models:
        for release in (OLD, NEW) if model in environment.truths else (OLD,):
            made, sha256 = releases.manifest(model, release, environment.scenario, start)
            hub.publish(made, sha256)
            devices.publish(made, sha256)
    _report(devices)
    for model in models:
        baseline = _rollout(model, environment)
        hub.store.save_state(baseline)
        hub.engine.load(baseline)
    devices.install(OLD)
    hub.store.save_standings(hub.engine.fleet)


def _report(devices: Devices) -> None:
    """The first check-in of each device, which names all its models."""
    environment = devices.environment
    fleet, facts, now = environment.hub.engine.fleet, environment.facts, environment.start
    old = facts.one_model[: facts.devices]
    for subset in np.unique(facts.subset[: facts.devices]).tolist():
        names = [name for place, name in enumerate(facts.has) if subset >> place & 1]
        reports = tuple(ModelReport(model=name, release=OLD) for name in sorted(names))
        mine = facts.subset[: facts.devices] == subset
        check_in = CheckIn(
            protocol=PROTOCOL, seq=1, full=True, models=reports, digest=digest(reports)
        )
        if len(several := np.flatnonzero(mine & ~old)):
            fleet.observe_all_models(several, now, check_in)
        if len(single := np.flatnonzero(mine & old)):
            fleet.set_protocols(single, ONE_MODEL)
            fleet.observe_all(single, now, model=names[0], release=OLD, phase=Phase.IDLE)


def _rollout(model: str, environment: Environment) -> RolloutState:
    """The completed rollout of the old release, to all devices that have the model."""
    models, start = environment.scenario.models, environment.start
    has = environment.facts.has[model][: environment.facts.devices]
    devices = int(np.count_nonzero(has))
    everyone = WaveState(
        percent=100.0,
        cut=devices,
        threshold=f"{1 << 64:x}",
        population=devices,
        rows=len(has),
        opened_at=start - 7200,
        closed_at=start - 3600,
    )
    return RolloutState(
        id=BASELINE if model == MODEL else f"{BASELINE}-{model}",
        spec=RolloutSpec(
            model=model,
            release=OLD,
            selector=f"{model}=yes" if len(models) > 1 else "",
            follow=True,
        ),
        salt=0,
        previous=None,
        status=Status.COMPLETED,
        reason="completed",
        text="All waves passed.",
        since=start - 3600,
        created_at=start - 7200,
        started_at=start - 7200,
        ended_at=start - 3600,
        wave=0,
        waves=(everyone,),
    )
