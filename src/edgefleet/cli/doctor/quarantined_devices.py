"""Quarantined devices, each of which waits for a person."""

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    if context.hub is None:
        return Finding(check="devices", state=State.SKIPPED, text="The hub cannot be asked.")
    quarantined = context.hub.quarantined()
    if not quarantined.count:
        return Finding(check="devices", state=State.OK, text="None is quarantined.")
    first = quarantined.devices[0]
    counted = "1 device is" if quarantined.count == 1 else f"{quarantined.count} devices are"
    return Finding(
        check="devices",
        state=State.WARNING,
        text=f"{counted} quarantined and wait for you; {first.name} rolled back "
        f"{first.rollbacks} releases of model {first.model}.",
        fix=f"edgefleet device why {first.name}",
    )
