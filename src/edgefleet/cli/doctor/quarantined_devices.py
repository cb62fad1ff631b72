"""Quarantined devices, each of which waits for a person."""

from edgefleet.base.texts import are, counted
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State, not_asked


def check(context: Context) -> Finding:
    if context.hub is None:
        return not_asked("devices")
    quarantined = context.hub.quarantined()
    if not quarantined.count:
        return Finding(check="devices", state=State.OK, text="None is quarantined.")
    first = quarantined.devices[0]
    found = f"{counted(quarantined.count, 'device')} {are(quarantined.count)}"
    return Finding(
        check="devices",
        state=State.WARNING,
        text=f"{found} quarantined until an operator clears the quarantine; {first.name} rolled "
        f"back {counted(first.rollbacks, 'release')} of model {first.model}.",
        fix=f"edgefleet device why {first.name}",
    )
