"""The planted bugs of the bounds of serving."""

from mutant import Mutant

MUTANTS = (
    Mutant(
        "one address takes all connections",
        "base/places.py",
        "        elif self._of_peer and peer and self._general[peer] >= self._of_peer:\n",
        "        elif self._of_peer and peer and self._general[peer] < 0:\n",
        ("tests/base/test_places.py",),
    ),
    Mutant(
        "a reserved connection answers any request",
        "http1/connection.py",
        "        if self._crowded is not None and not self._host.urgent(request):\n",
        "        if self._crowded is not None and self._host.draining:\n",
        ("tests/http1/test_reserve.py",),
    ),
    Mutant(
        "a late request is run for nobody",
        "serving/backlog.py",
        "        if deadline_ns and now + run_ns > deadline_ns:\n",
        "        if deadline_ns and now > deadline_ns:\n",
        ("tests/serving/test_backlog.py",),
    ),
)
