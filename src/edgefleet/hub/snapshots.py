"""Finished rollouts leave the history: their pages, and the start of the hub from them.

A start loads the page of each finished rollout, and then counts two kinds of outcomes: those after
the snapshot, and all outcomes of rollouts without a page. So it does not grow with what ended.
"""

import asyncio
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.hub.limits import PAGES_AT_ONCE
from edgefleet.hub.metrics import Metrics
from edgefleet.hub.store.pages import Snapshot
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.evidence.ledger_page import LedgerPage, encode_page

_DAMAGED: Final = "The snapshot is damaged. The hub has counted all outcomes again."


class Snapshots:
    """The snapshot of one hub. ``damage`` says what could not be read at the start."""

    def __init__(self, store: SqliteStore, engine: Engine, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._last = Snapshot()
        self._unused: list[str] = []  # rollouts with a page that the start did not load
        self.damage: tuple[str, ...] = ()

    def load(self) -> None:
        """Restore what the devices reported. The rollouts must be loaded."""
        reader, metrics = self._store.reader, self._metrics
        found = reader.pages.snapshot()
        if found is None:
            self.damage = (_DAMAGED,)
            self._unused = [page.rollout for page in reader.pages.pages()]
        self._last = found or Snapshot()
        loaded = set[str]() if found is None else self._load_pages()
        metrics.outcomes.update(self._last.counts)
        missing = [state.id for state in self._engine.states() if state.id not in loaded]
        for stored in reader.outcomes_between(missing, self._last.outcome):
            self._engine.intake.record(stored.row, stored.outcome, stored.received_at)
        for stored in reader.outcomes_after(self._last.outcome):
            self._engine.intake.record(stored.row, stored.outcome, stored.received_at)
            metrics.outcomes[stored.outcome.kind.value] += 1

    def _load_pages(self) -> set[str]:
        """Load the valid pages of finished rollouts. Returns the ids of these rollouts."""
        finished, loaded = self._engine.finished, set[str]()
        for page in self._store.reader.pages.pages():
            rollout = page.rollout
            if finished.takes_page(rollout):
                try:
                    finished.load(rollout, page.body)
                except ValueError:
                    text = f"The page of {rollout} is damaged. Its outcomes were counted again."
                    self.damage = (*self.damage, text)
                else:
                    loaded.add(rollout)
                    continue
            self._unused.append(rollout)
        return loaded

    async def save(self) -> None:
        """Store the pages of rollouts that finished since, and the last outcome in them.

        Raises DeviceError ``overloaded`` or ``disk_full``; the next call tries again.
        """
        while self._is_due() and await self._save_some():
            pass

    def _is_due(self) -> bool:
        """True if a page or an outcome is not in the snapshot. Nothing is written otherwise."""
        finished = self._engine.finished
        if self._unused or finished.due(self._clock.now()) or finished.outdated():
            return True
        return self._metrics.outcomes.total() != sum(self._last.counts.values())

    async def _save_some(self) -> bool:
        """Store at most ``PAGES_AT_ONCE`` pages. Returns whether more are due."""
        finished, writer = self._engine.finished, self._store.pages
        due: list[tuple[str, int, LedgerPage]] = []
        outdated = list(self._unused)  # a page that is not loaded may lack later outcomes
        more: list[bool] = []

        def copy(_last: int) -> None:
            rollouts = finished.due(self._clock.now())
            chosen = rollouts[:PAGES_AT_ONCE]
            due.extend((one, finished.reports(one), finished.copy(one)) for one in chosen)
            outdated.extend(finished.outdated())
            more.append(len(rollouts) > len(chosen))

        last = await writer.last_outcome(copy)
        if last == self._last.outcome and not due and not outdated:
            return False
        generation = self._last.generation + 1
        pages: dict[str, bytes] = {}
        for rollout, _, page in due:
            pages[rollout] = await asyncio.to_thread(encode_page, page)
            await writer.write(generation, rollout, pages[rollout])
        counts = dict(self._last.counts)
        for kind, count in (await writer.count(self._last.outcome, last)).items():
            counts[kind] = counts.get(kind, 0) + count
        snapshot = Snapshot(generation, last, counts)
        removed = [one for one in outdated if one not in pages]

        def committed(_none: None) -> None:
            self._last = snapshot
            self._unused = []
            for rollout in removed:
                finished.removed(rollout)
            for rollout, reports, _ in due:
                finished.stored(rollout, reports, pages[rollout])

        await writer.publish(snapshot, pages, removed, committed)
        await writer.clean()
        return more[0]
