"""``edgefleet rollout plan --dry-run``: the plan simulated on a fleet like this one."""

from typing import Final

from msgspec.structs import replace

from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import duration, size
from edgefleet.protocol.operator import PlanFleet
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.wire import Wire
from edgefleet.sim.virtual.dry_run import FleetToTry, Prediction, predict
from edgefleet.sim.virtual.scenario import Group

SEED: Final = 7  # the same plan on the same fleet gives the same answer


class Tried(Wire, frozen=True, kw_only=True):
    """What was found, and what a good release would do there."""

    fleet: PlanFleet
    prediction: Prediction | None  # None: no device is eligible


def try_plan(spec: RolloutSpec, found: PlanFleet, manifest: ReleaseManifest) -> Tried:
    """Simulate the plan on ``found``; its start is the plan's own, or now."""
    if not found.groups:
        return Tried(fleet=found, prediction=None)
    groups = tuple(
        Group(profile=group.profile, labels=group.labels, devices=group.devices)
        for group in found.groups
    )
    fleet = FleetToTry(groups=groups, offline=found.offline, interval_s=found.interval_s)
    begins = max(found.at, spec.start_at or 0.0)
    # Everybody in ``found`` is selected, and people are taken to agree at once.
    plan = replace(spec, selector="", start_at=None, approval=type(spec.approval)())
    return Tried(fleet=found, prediction=predict(plan, fleet, manifest, seed=SEED, now=begins))


def trial_lines(tried: Tried) -> list[str]:
    """For people: what would happen, wave by wave."""
    found, said = tried.fleet, tried.prediction
    left_out = ", ".join(f"{count} {reason}" for reason, count in found.ineligible.items())
    if said is None:
        return [f"The release fits no device of them: {left_out}."]
    rows = [
        ("devices", f"{said.devices}, {found.offline} of them offline now"),
        *([("left out", left_out)] if left_out else []),
        ("bytes", f"{size(said.bytes)}, without caches"),
        ("on trial", f"{said.most_in_trial} at once, at most"),
        (
            "takes",
            "no end by itself" if said.duration_s is None else duration(said.duration_s),
        ),
        ("ends", f"{said.ends}: {said.text}"),
    ]
    if said.simulated < said.devices:
        rows.append(("simulated", f"{said.simulated} devices, in the same proportions"))
    waves = [
        (
            wave.name,
            wave.cut,
            duration(wave.opens_s),
            None if wave.closes_s is None else duration(wave.closes_s),
        )
        for wave in said.waves
    ]
    return [
        "Nothing was planned. A good release would go out like this:",
        *facts(rows),
        "",
        *table(("wave", "cut", "opens after", "closes after"), waves),
    ]
