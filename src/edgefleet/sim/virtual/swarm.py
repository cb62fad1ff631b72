"""Many runs with random scenarios. Each seed gives one scenario, and replays it."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from random import Random

from msgspec.structs import replace

from edgefleet.protocol.rollout import (
    PROFILE,
    ApprovalSpec,
    BudgetSpec,
    ExposureSpec,
    GateSpec,
    PaceSpec,
    Rollback,
    RolloutSpec,
    WaveSpec,
    WindowSpec,
)
from edgefleet.protocol.wire import Wire
from edgefleet.sim.virtual.result import Result
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.scenario import (
    MODEL,
    MODELS,
    NEW,
    Act,
    Deed,
    Faults,
    Population,
    Scenario,
    SideRollout,
    Truth,
)

_SITES_APART = 100  # at most so many sites are tested apart
_CLASS_FAULTS = 0.12  # of the mixtures with one model
_BAD = ("fails", "crashes", "refuses", "bricks", "burns", "hangs", "mute")
_AT_ANY_MOMENT = frozenset(
    {"loss", "doubling", "reordering", "power_cuts"}
)  # devices cannot be grouped
_HEAL_S = 5400.0
_SELDOM_S = 600.0
_END_S = 12 * 3600.0  # after healing, for plans without windows


class SwarmResult(Wire, frozen=True, kw_only=True):
    """The totals of a swarm. ``failing`` are seeds. `edgefleet sim replay SEED` runs one again."""

    seeds: int
    devices: int
    violations: int
    unfinished: int
    failing: tuple[int, ...]
    verdicts: dict[str, int]
    reasons: dict[str, int]
    persons: int  # runs that a person ended
    faults: dict[str, int]  # number of occurrences, or of affected devices
    by_checker: dict[str, int]
    events: int
    reports: int
    exposed: int
    wall_s: float


class Broken(Wire, frozen=True, kw_only=True):
    """A seed whose run raised an exception."""

    seed: int
    text: str


def mixture(seed: int) -> Scenario:
    """The scenario of a seed: a random fleet, release, plan, faults and operator actions."""
    chance = Random(seed)  # noqa: S311 - reproducible on purpose
    fleet, release, faults = _fleet(chance), _release(chance), _faults(chance)
    plan = _plan(chance, fleet.sites)
    acts = _operator(chance)
    plan, release = replace(plan, approval=_approval(chance)), _quality(chance, release)
    acts += _freeze(chance)
    models = _models(chance)
    fleet = replace(fleet, models=models, one_model_agents=_one_model_agents(chance, models))
    if models > 1 and chance.random() < 0.5:
        plan = replace(plan, selector=f"{MODEL}=yes")
    beside = tuple(_beside(chance, model, fleet.sites) for model in _sides(chance, models))
    if fleet.one_model_agents:  # a plan must not displace the model of such an agent
        plan = replace(plan, skip_ineligible=True)
        beside = tuple(_skipping(one) for one in beside)
    if chance.random() < 0.15:
        faults = replace(faults, hub_restores=chance.randrange(1, 3))
    if models == 1 and chance.random() < _CLASS_FAULTS:
        release, plan = _on_one_class(chance, release, plan, fleet)
    nights = len(plan.waves) + 1 if plan.windows else 0  # each wave may wait a day for a window
    if plan.windows:  # simulate days with fewer check-ins
        fleet = replace(fleet, interval_s=_SELDOM_S, panel=min(fleet.panel, 10))
    return Scenario(
        title=f"mixture {seed}",
        fleet=fleet,
        release=release,
        faults=faults,
        rollout=plan,
        beside=beside,
        operator=tuple(sorted(acts, key=lambda act: act.at_s)),
        heal_s=_HEAL_S,
        person_s=1800.0,
        end_s=_END_S + nights * 86_400.0,
    )


def play(seed: int, devices: int) -> Result:
    """Run the scenario of a seed."""
    run = Run(mixture(seed), name=f"mixture {seed}", devices=devices, seed=seed)
    return replace(run.play(), curve=(), rollouts=())


def swarm(
    seeds: range, devices: int, *, processes: int, progress: Callable[[str], None]
) -> SwarmResult:
    """Run all seeds, in ``processes`` processes."""
    runs: list[Result] = []
    broken: list[Broken] = []
    wall_s = 0.0
    for result in _results(seeds, devices, processes):
        if isinstance(result, Broken):
            broken.append(result)
            progress(f"seed {result.seed}: {result.text}")
            progress(f"  edgefleet sim replay {result.seed} --devices {devices}")
            continue
        runs.append(result)
        wall_s += result.wall_s
        if result.violations or not result.finished:
            first = result.violated[0].text if result.violated else "unfinished"
            progress(f"seed {result.seed}: {first}")
            progress(f"  edgefleet sim replay {result.seed} --devices {devices}")
        if len(runs) % 25 == 0 or len(runs) == len(seeds):
            progress(f"{len(runs)} of {len(seeds)} seeds")
    faults: Counter[str] = Counter()
    by_checker: Counter[str] = Counter()
    for result in runs:
        faults.update(result.faults)
        by_checker.update(result.by_checker)
    if broken:
        by_checker["code"] = len(broken)
    failing = [one.seed for one in runs if one.violations or not one.finished]
    return SwarmResult(
        seeds=len(runs) + len(broken),
        devices=devices,
        violations=sum(result.violations for result in runs) + len(broken),
        unfinished=sum(not result.finished for result in runs) + len(broken),
        failing=tuple(sorted([*failing, *(one.seed for one in broken)])),
        verdicts=_sorted(Counter(result.verdict for result in runs)),
        reasons=_sorted(Counter(result.reason for result in runs)),
        persons=sum(bool(result.person) for result in runs),
        faults=_sorted(faults),
        by_checker=_sorted(by_checker),
        events=sum(result.events for result in runs),
        reports=sum(result.reports for result in runs),
        exposed=sum(result.exposed for result in runs),
        wall_s=round(wall_s, 1),
    )


def _results(seeds: range, devices: int, processes: int) -> Iterator[Result | Broken]:
    if processes == 1:
        yield from (_tried(seed, devices) for seed in seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(partial(_tried, devices=devices), seeds)


def _tried(seed: int, devices: int) -> Result | Broken:
    try:
        return play(seed, devices)
    except Exception as error:  # noqa: BLE001 - the swarm reports every exception
        return Broken(seed=seed, text=f"{type(error).__name__}: {error}")


def _release(chance: Random) -> Truth:
    shares = dict.fromkeys(_BAD, 0.0)
    if chance.random() < 0.7:
        shares[chance.choice(_BAD)] = chance.choice((0.01, 0.03, 0.08, 0.2, 0.5))
    confidence = 0.65 if chance.random() < 0.15 else 0.9
    plain = Truth(confidence=confidence, size_bytes=chance.choice((200_000, 4_000_000)))
    return replace(plain, **shares)


def _on_one_class(
    chance: Random, release: Truth, plan: RolloutSpec, fleet: Population
) -> tuple[Truth, RolloutSpec]:
    """The release fails on one profile, or at one site, in one of the ways of ``_BAD``."""
    way, share = chance.choice(_BAD), chance.choice((0.5, 1.0, 1.0))
    if chance.random() < 0.5:
        only_on = f"{PROFILE}={chance.choice(fleet.profiles)}"
    else:
        only_on = f"site=site-{chance.randrange(fleet.sites) + 1:04}"
    rollback = chance.choice((Rollback.PART, Rollback.PART, Rollback.ALL))
    shares = dict.fromkeys(_BAD, 0.0) | {way: share}
    labels = ("site",) if fleet.sites <= _SITES_APART else ()
    gate = replace(plan.gate, classes=labels, rollback=rollback)
    return replace(release, **shares, only_on=only_on), replace(plan, gate=gate)


def _faults(chance: Random) -> Faults:
    """A random third of the fault kinds, each with a random amount."""
    kinds = {
        "offline": (0.05, 0.4),
        "flapping": (0.05, 0.5),
        "loss": (0.01, 0.2),
        "doubling": (0.01, 0.2),
        "reordering": (0.01, 0.2),
        "thin": (0.05, 0.4),
        "disk_full": (0.05, 0.3),
        "power_cuts": (0.0005, 0.01),
        "lost_writes": (0.1, 0.6),
        "wrong_clocks": (0.05, 0.5),
        "old_agents": (0.01, 0.1),
    }
    shares = {
        kind: round(chance.uniform(*span), 4)
        for kind, span in kinds.items()
        if chance.random() < (0.2 if kind in _AT_ANY_MOMENT else 0.35)
    }
    dark = chance.randrange(1, 4) if chance.random() < 0.3 else 0
    crashes = chance.randrange(1, 9) if chance.random() < 0.4 else 0
    return replace(Faults(hub_crashes=crashes, dark_sites=dark), **shares)


def _fleet(chance: Random) -> Population:
    return Population(
        sites=chance.choice((3, 24, 200)),
        newcomers=round(chance.uniform(0.02, 0.2), 3) if chance.random() < 0.25 else 0.0,
        timezones=("Europe/Paris", "America/New_York", "Asia/Kolkata"),
        requests_s=chance.choice((0.5, 1.0, 2.0)),
        panel=chance.choice((0, 10, 20)),
    )


def _plan(chance: Random, sites: int) -> RolloutSpec:
    waves = chance.choice(
        (
            (WaveSpec(percent=1), WaveSpec(percent=10), WaveSpec(percent=100)),
            (WaveSpec(percent=5), WaveSpec(percent=50), WaveSpec(percent=100)),
            (WaveSpec(percent=100),),
        )
    )
    return RolloutSpec(
        model=MODEL,
        release=NEW,
        waves=waves,
        gate=GateSpec(
            soak_s=chance.choice((0.0, 60.0, 300.0)),
            patience_s=chance.choice((600.0, 3600.0)),
            min_sample=chance.choice((5, 30)),
        ),
        exposure=ExposureSpec(
            first=chance.choice((3, 10, 50)),
            growth=chance.choice((0.5, 1.0, 2.0)),
            ceiling=chance.choice((0.02, 0.05, 1.0)),
        ),
        pace=PaceSpec(starts_per_minute=chance.choice((0, 0, 120))),
        budgets=(
            (BudgetSpec(label="site", max_in_trial=max(3, 72 // sites)),)
            if chance.random() < 0.12
            else ()
        ),
        windows=_windows(chance) if chance.random() < 0.1 else (),
        bake_s=chance.choice((0.0, 600.0, 3600.0)),
    )


def _windows(chance: Random) -> tuple[WindowSpec, ...]:
    zone = chance.choice(("UTC", "device"))
    spans = (("00:30", "04:30"), ("10:30", "12:30"), ("17:00", "20:00"))
    return tuple(WindowSpec(start=start, end=end, timezone=zone) for start, end in spans)


def _operator(chance: Random) -> tuple[Act, ...]:
    if chance.random() < 0.75:
        return ()
    at_s = chance.uniform(30.0, 3000.0)
    story = chance.choice(
        (
            (Deed.PAUSE, Deed.RESUME),
            (Deed.HALT, Deed.RESUME),
            (Deed.HALT, Deed.REVERT),
            (Deed.ADVANCE,),
            (Deed.REVERT,),
        )
    )
    acts: list[Act] = []
    for verb in story:
        acts.append(Act(at_s=round(at_s, 1), verb=verb))
        at_s += chance.uniform(60.0, 1800.0)
    return tuple(acts)


def _approval(chance: Random) -> ApprovalSpec:
    if chance.random() < 0.8:
        return ApprovalSpec()
    return ApprovalSpec(people=chance.choice((1, 2)), each_wave=chance.random() < 0.5)


def _quality(chance: Random, release: Truth) -> Truth:
    """In some scenarios, a lower quality that single devices accept and the gate may not."""
    if chance.random() < 0.8:
        return release
    worse = chance.choice(
        ({"latency": 1.3}, {"accuracy": 0.94}, {"drift": 0.4}, {"latency": 200.0})
    )
    return replace(release, **worse)


def _models(chance: Random) -> int:
    return chance.choice((1, 1, 2, 3, 4))


def _one_model_agents(chance: Random, models: int) -> float:
    """In half of the scenarios with several models, some agents have one model."""
    if models == 1 or chance.random() < 0.5:
        return 0.0
    return round(chance.uniform(0.02, 0.3), 3)


def _sides(chance: Random, models: int) -> tuple[str, ...]:
    """The models with a rollout beside the first, in half of the scenarios all others."""
    others = MODELS[1:models]
    return others if chance.random() < 0.5 else others[1:]


def _beside(chance: Random, model: str, sites: int) -> SideRollout:
    """A rollout of another model: without windows, which would make it last for days."""
    release, plan = _release(chance), _plan(chance, sites)
    selector = f"{model}=yes" if chance.random() < 0.5 else ""
    at_s = round(chance.uniform(0.0, 1800.0), 1)
    plan = replace(plan, model=model, selector=selector, windows=(), budgets=())
    return SideRollout(rollout=plan, release=release, at_s=at_s)


def _skipping(one: SideRollout) -> SideRollout:
    return replace(one, rollout=replace(one.rollout, skip_ineligible=True))


def _freeze(chance: Random) -> tuple[Act, ...]:
    """In some scenarios, an operator freezes and thaws the fleet."""
    if chance.random() < 0.85:
        return ()
    at_s = round(chance.uniform(30.0, 3000.0), 1)
    until_s = round(at_s + chance.uniform(60.0, 1800.0), 1)
    return Act(at_s=at_s, verb=Deed.FREEZE), Act(at_s=until_s, verb=Deed.THAW)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
