"""The names of devices, for completion on the command line."""

from collections.abc import Iterator
from itertools import islice

from edgefleet.hub.limits import NAMES_READ
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.selector import parse


def device_names(fleet: Fleet) -> Iterator[str]:
    """The names of the first NAMES_READ devices, in order of enrolment.

    The limit bounds the time in which a prefix that no name has delays other requests.
    """
    rows = fleet.selected(parse("")).nonzero()[0]
    return (fleet.name(row) for row in islice(rows.tolist(), NAMES_READ))
