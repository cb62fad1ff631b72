"""A serving process of another version than its agent is replaced at an idle moment.

It survives a restart of the agent, so after an upgrade it runs the old program. It is replaced
once, when no model is in trial and no request has come for a while. If the new process has another
version as well, the installed program is not that of this agent, and the process is left alone.
"""

from edgefleet.agent import limits
from edgefleet.agent.step_context import DeviceContext
from edgefleet.agent.table import IN_TRIAL, Stage
from edgefleet.protocol.serving import ServingStatus


def is_swap_due(device: DeviceContext, status: ServingStatus | None) -> bool:
    """Whether to start the process with this ``status`` again now."""
    facts = device.state.facts
    if status is None or facts is None or device.soft.swapped:
        return False
    if status.version in ("", facts.agent_version):  # an old process does not say its version
        return False
    if any(one.stage in IN_TRIAL or one.stage is Stage.REVERTING for one in device.models.values()):
        return False
    return all(
        own.stats.in_flight == 0
        and (own.stats.last_answer_s is None or own.stats.last_answer_s >= limits.IDLE_S)
        for own in status.models
    )
