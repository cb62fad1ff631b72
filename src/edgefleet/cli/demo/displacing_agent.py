"""A real agent with a planted bug: it serves one model only, and a new one displaces the rest."""

import sys

from edgefleet.agent import activation
from edgefleet.agent.effect import WantedModel
from edgefleet.agent.main import main
from edgefleet.agent.state import ModelState

_all_wanted = activation.wanted


def only_one(
    models: dict[str, ModelState], isolated: tuple[str, ...] = (), waiting: tuple[str, ...] = ()
) -> tuple[WantedModel, ...]:
    """Of all models to serve: the one on trial, else the last by name."""
    found = _all_wanted(models, isolated, waiting)
    return tuple(one for one in found if one.trial is not None) or found[-1:]


if __name__ == "__main__":
    activation.wanted = only_one
    sys.exit(main(sys.argv[1:]))
