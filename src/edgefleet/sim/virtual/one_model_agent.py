"""The messages of an agent of protocol 2, which has one model.

The simulated device runs the current core. Its check-ins are written in protocol 2, and so is all
that the hub knows of the device.
"""

from msgspec.structs import replace

from edgefleet.agent.state import AgentState, running
from edgefleet.agent.table import PHASES, Stage
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.version import ONE_MODEL


def in_protocol_2(check_in: CheckIn, state: AgentState) -> CheckIn:
    """The check-in in protocol 2: it names the model with an attempt, otherwise the first."""
    models, telemetry = state.models, check_in.telemetry
    name = min(models, key=lambda one: (models[one].stage is Stage.IDLE, one), default=None)
    release = running(models[name]) if name is not None else None
    return CheckIn(
        protocol=ONE_MODEL,
        seq=check_in.seq,
        phase=PHASES[models[name].stage if name is not None else Stage.IDLE],
        model=name if release is not None else None,
        release=release,
        outcomes=check_in.outcomes,
        telemetry=None if telemetry is None else replace(telemetry, model=None),
        facts=check_in.facts,
    )
