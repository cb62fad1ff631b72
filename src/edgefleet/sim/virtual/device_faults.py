"""The luck and the faults of each device, drawn once from the seed."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgefleet import __version__
from edgefleet.protocol.device import Facts
from edgefleet.protocol.rollout import PROFILE
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.sim.virtual.active_device import shares_of
from edgefleet.sim.virtual.scenario import Faults, Population, Scenario, Span, Truth

Floats = npt.NDArray[np.float64]


class DeviceFaults:
    """Columns with one value per row. After healing the only fault is a dead device."""

    def __init__(self, scenario: Scenario, devices: int, seed: int, start: float) -> None:
        fleet, faults = scenario.fleet, scenario.faults
        chance = np.random.default_rng(seed)
        self.devices = devices
        self.newcomers = int(np.ceil(devices * fleet.newcomers)) if fleet.newcomers else 0
        count = devices + self.newcomers
        self.count = count
        self.luck: Floats = _luck(chance.random(count), fleet)
        self.bucket = chance.integers(0, int(fleet.interval_s), count).astype(np.uint16)
        self.comes_at = _drawn(chance, count, 1.0, (60.0, 3600.0), start)
        self.comes_at[:devices] = start
        self.away_until = _drawn(chance, count, faults.offline, faults.offline_s, start)
        self.disk_until = _drawn(chance, count, faults.disk_full, faults.disk_full_s, start)
        self.old: Mask = chance.random(count) < faults.old_agents
        self.thin: Mask = chance.random(count) < faults.thin
        wrong = chance.random(count) < faults.wrong_clocks
        self.skew: Floats = np.where(wrong, faults.wrong_by_s * (2 * chance.random(count) - 1), 0.0)
        flaps = chance.random(count) < faults.flapping
        up_s, down_s = faults.flapping_up_s, faults.flapping_down_s
        self.up_s: Floats = np.where(flaps, chance.uniform(*up_s, count), np.inf)
        self.down_s: Floats = np.where(flaps, chance.uniform(*down_s, count), 0.0)
        self.shift_s: Floats = chance.uniform(0.0, up_s[1] + down_s[1], count)
        self.panel: Mask = np.zeros(count, np.bool_)
        self.panel[chance.choice(devices, min(fleet.panel, devices), replace=False)] = True
        self.dead: Mask = np.zeros(count, np.bool_)
        chance = np.random.default_rng((seed, 1))  # apart: one model draws nothing
        self.one_model: Mask = chance.random(count) < fleet.one_model_agents
        self.has = _subsets(chance, scenario.models, fleet.model_share, self.one_model)
        self.subset = sum(
            (has.astype(np.uint8) << place for place, has in enumerate(self.has.values())),
            np.zeros(count, np.uint8),
        )
        self._subset_labels = [
            {model: "yes" for place, model in enumerate(self.has) if number >> place & 1}
            if len(self.has) > 1
            else {}
            for number in range(1 << len(self.has))
        ]
        self._labels: dict[tuple[int, int], Mapping[str, str]] = {}  # by id of the others, subset
        self._flapping = bool(flaps.any())
        self._away = faults.offline > 0
        self._dark = faults.dark_sites > 0
        self.healed = False
        self._sites: list[dict[str, str]] = [
            {"site": f"site-{number + 1:04}", "region": "nesw"[number % 4]}
            | ({"timezone": fleet.timezones[number % len(fleet.timezones)]}
               if fleet.timezones else {})
            for number in range(min(fleet.sites, max(1, count)))
        ]  # fmt: skip
        self._groups = fleet.groups
        self.dark: Floats = _dark(faults, len(self._sites), seed, start, count)  # from, until
        self._group = np.repeat(
            np.arange(len(fleet.groups)), [group.devices for group in fleet.groups]
        )
        profiles = dict.fromkeys((*fleet.profiles, *(group.profile for group in fleet.groups)))
        self._by_profile = {
            profile: Facts(
                profile=profile,
                agent_version=__version__,
                runtimes=("onnx",),
                arch="aarch64",
                memory_mib=1024,
            )
            for profile in profiles
        }
        self._profiles = fleet.profiles
        self._bytes_s = (faults.thin_bytes_s, fleet.bytes_s)
        if scenario.release.only_on:
            self._spare_others(scenario.release)

    def name(self, row: int) -> str:
        return f"d{row:07}"

    def labels(self, row: int) -> Mapping[str, str]:
        """The labels of the device. With several models, one label for each model on it.

        Devices with the same labels share one mapping: a mapping for each took 184 bytes a device.
        """
        labels: Mapping[str, str] = self._sites[row % len(self._sites)]
        if self._groups:
            labels = self._groups[self._group.item(row % len(self._group))].labels
        subset = self.subset.item(row)
        if not self._subset_labels[subset]:
            return labels
        key = id(labels), subset
        found = self._labels.get(key)
        if found is None:
            found = self._labels[key] = {**labels, **self._subset_labels[subset]}
        return found

    def device(self, row: int) -> Facts:
        if self._groups:
            group = self._groups[self._group.item(row % len(self._group))]
            return self._by_profile[group.profile]
        return self._by_profile[self._profiles[row // len(self._sites) % len(self._profiles)]]

    def kinds(self, rows: Rows) -> npt.NDArray[np.int64]:
        """A number for each row. Equal numbers mean equal facts from ``device``."""
        if self._groups:
            profiles = [group.profile for group in self._groups]
            numbers = np.array([profiles.index(group.profile) for group in self._groups])
            return numbers[self._group[rows % len(self._group)]]
        return rows // len(self._sites) % len(self._profiles)

    def _spare_others(self, release: Truth) -> None:
        """Move the luck of the devices that the release spares out of reach of its shares."""
        rows, (key, _, value) = np.arange(self.count), release.only_on.partition("=")
        if key == PROFILE:
            numbers = self.kinds(rows)
            _, first = np.unique(numbers, return_index=True)
            alike = [self.device(row).profile == value for row in first.tolist()]
        elif self._groups:
            numbers = self._group[rows % len(self._group)]
            alike = [group.labels.get(key) == value for group in self._groups]
        else:
            numbers = rows % len(self._sites)
            alike = [labels.get(key) == value for labels in self._sites]
        spared = ~np.array(alike)[np.searchsorted(np.unique(numbers), numbers)]
        reach = sum(shares_of(release))
        self.luck[spared] = reach + self.luck[spared] * (1 - reach)

    def plain(self, rows: Rows, now: float) -> Mask:
        """The devices without a fault of their own from ``now`` on, and without own telemetry."""
        marred = (
            self.thin | self.old | self.one_model | self.panel | self.dead | np.isfinite(self.up_s)
        )
        plain: Mask = ~marred[rows] & (self.skew[rows] == 0)
        plain &= (self.away_until[rows] <= now) & (self.dark[1, rows] <= now)
        return plain & (self.disk_until[rows] <= now)

    def bytes_s(self, row: int) -> float:
        thin = bool(self.thin[row]) and not self.healed
        return self._bytes_s[0] if thin else self._bytes_s[1]

    def room(self, row: int, now: float) -> bool:
        return self.healed or now >= self.disk_until.item(row)

    def up(self, row: int, now: float) -> bool:
        """Whether the device is alive, its protocol is supported and its link is up."""
        if self.dead.item(row) or self.old.item(row):
            return False
        if self.healed:
            return True
        if now < self.away_until.item(row):
            return False
        if self.dark.item(0, row) <= now < self.dark.item(1, row):
            return False
        if not self._flapping:
            return True
        up_s: float = self.up_s.item(row)
        cycle: float = up_s + self.down_s.item(row)
        return up_s == np.inf or (now + self.shift_s.item(row)) % cycle < up_s

    def all_up(self, rows: Rows, now: float | Floats) -> Mask:
        """``up`` for many rows, at one time or each at its own time."""
        up: Mask = ~(self.dead[rows] | self.old[rows])
        if self.healed:
            return up
        if self._away:
            up &= now >= self.away_until[rows]
        if self._dark:
            up &= (now < self.dark[0, rows]) | (now >= self.dark[1, rows])
        if self._flapping:
            up_s = self.up_s[rows]
            with np.errstate(invalid="ignore"):
                place = (now + self.shift_s[rows]) % (up_s + self.down_s[rows])
                up &= (up_s == np.inf) | (place < up_s)
        return up


def _luck(luck: Floats, fleet: Population) -> Floats:
    """The luck of each row. In an uneven fleet, each site has a part of [0, 1) of its own."""
    sites = min(fleet.sites, len(luck)) if fleet.uneven else 1
    found: Floats = (np.arange(len(luck)) % sites + luck) / sites
    return found


def _dark(faults: Faults, sites: int, seed: int, start: float, count: int) -> Floats:
    """For each row, from when until when its site is dark."""
    chance = np.random.default_rng((seed, 2))  # apart: without a dark site nothing is drawn
    dark: Floats = np.full((2, sites), start)
    if faults.dark_sites:
        chosen = chance.choice(sites, min(faults.dark_sites, sites), replace=False)
        dark[0, chosen] += chance.uniform(*faults.dark_from_s, len(chosen))
        dark[1, chosen] = dark[0, chosen] + chance.uniform(*faults.dark_s, len(chosen))
    return dark[:, np.arange(count) % sites]


def _subsets(
    chance: np.random.Generator, models: tuple[str, ...], share: float, one_model: Mask
) -> dict[str, Mask]:
    """By model, the devices that run it at the start. Each has a model, and the first has all.

    An agent with one model has exactly one.
    """
    count = len(one_model)
    one_model[:1] = False
    has = chance.random((len(models), count)) < share
    has[:, 0] = True
    only = chance.integers(0, len(models), count)
    alone = one_model | ~has.any(axis=0)
    has[:, alone] = np.arange(len(models))[:, None] == only[alone]
    return dict(zip(models, has, strict=True))


def _drawn(
    chance: np.random.Generator, count: int, share: float, span: Span, start: float
) -> Floats:
    """A time within ``span`` after the start for ``share`` of the rows, else the start."""
    hit = chance.random(count) < share
    moments: Floats = np.where(hit, start + chance.uniform(*span, count), start)
    return moments
