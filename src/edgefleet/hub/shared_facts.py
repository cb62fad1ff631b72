"""Facts of devices, equal ones kept once, and the profiles in use. Unused ones are dropped.

So a device has one place in each table, however often it changes: one device cannot use them up.
"""

from collections import Counter

from edgefleet.hub.limits import SHARED_FACTS
from edgefleet.protocol.device import Facts


class SharedFacts:
    """The facts of each row. At most SHARED_FACTS distinct ones are kept once."""

    def __init__(self) -> None:
        self._facts: list[Facts] = []
        self._shared: dict[Facts, Facts] = {}
        self._uses: Counter[Facts] = Counter()  # rows with facts of ``_shared``
        self.profiles: Counter[str] = Counter()  # devices of each; none has a count of 0

    def __getitem__(self, row: int) -> Facts:
        return self._facts[row]

    def add(self, facts: Facts) -> None:
        """Add the next row."""
        self._facts.append(self._use(facts))

    def set(self, row: int, facts: Facts) -> None:
        """Replace the facts of a row."""
        if facts != self._facts[row]:
            self._drop(self._facts[row])  # first: its place is then free
            self._facts[row] = self._use(facts)

    def forget(self, row: int) -> None:
        """The device of the row was removed. Its facts can still be read."""
        self._drop(self._facts[row])

    def _use(self, facts: Facts) -> Facts:
        self.profiles[facts.profile] += 1
        if len(self._shared) >= SHARED_FACTS and facts not in self._shared:
            return facts
        kept = self._shared.setdefault(facts, facts)
        self._uses[kept] += 1
        return kept

    def _drop(self, facts: Facts) -> None:
        self.profiles[facts.profile] -= 1
        if not self.profiles[facts.profile]:
            del self.profiles[facts.profile]
        if self._shared.get(facts) is facts:
            self._uses[facts] -= 1
            if not self._uses[facts]:
                del self._shared[facts], self._uses[facts]
