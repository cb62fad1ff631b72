"""``edgefleet rollout plan --dry-run``: simulates the plan on a fleet like this one."""

from typing import Final

from msgspec.structs import replace

from edgefleet.base.texts import counted
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import duration, size
from edgefleet.protocol.operator import PlanFleet
from edgefleet.protocol.release import ReleaseManifest, unjudged
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.protocol.today import left_out_text, today_rows
from edgefleet.protocol.wire import Wire
from edgefleet.sim.virtual.dry_run import FleetToTry, Prediction, predict
from edgefleet.sim.virtual.scenario import Group

SEED: Final = 7  # the same plan on the same fleet gives the same result


_TOO_SMALL: Final = ("memory_too_small", "memory_full")  # of ``PlanFleet.ineligible``


class Tried(Wire, frozen=True, kw_only=True):
    """The fleet of the plan, and the prediction for a good release."""

    fleet: PlanFleet
    prediction: Prediction | None  # None if no device is eligible
    unjudged: str = ""  # metrics of the release that no gate can judge


def try_plan(spec: RolloutSpec, found: PlanFleet, manifest: ReleaseManifest) -> Tried:
    """Simulate the plan on ``found``, from the plan's start time or now."""
    if not found.groups:
        return Tried(fleet=found, prediction=None)
    groups = tuple(
        Group(profile=group.profile, labels=group.labels, devices=group.devices)
        for group in found.groups
    )
    fleet = FleetToTry(
        groups=groups,
        offline=found.offline,
        is_first=not found.replaced,
        interval_s=found.interval_s,
    )
    begins = max(found.at, spec.start_at or 0.0)
    # All devices in ``found`` are selected, and the fleet of the simulation never saw the release.
    plan = replace(spec, selector="", start_at=None, again="")
    return Tried(
        fleet=found,
        prediction=predict(plan, fleet, manifest, seed=SEED, now=begins),
        unjudged=unjudged(manifest),
    )


def _memory(found: PlanFleet) -> str:
    """The memory that a device needs, and the number of devices without it."""
    by_profile = found.memory_mib
    if len(set(by_profile.values())) == 1:
        needed = f"{next(iter(by_profile.values()))} MiB per device"
    else:
        each = (f"{mib} MiB on {profile}" for profile, mib in by_profile.items())
        needed = f"{', '.join(each)}, per device"
    count = sum(found.ineligible.get(reason, 0) for reason in _TOO_SMALL)
    if not count:
        return needed
    return f"{needed}; it does not fit on {counted(count, 'device')}"


def _takes(predicted: Prediction) -> str:
    took = "does not end" if predicted.duration_s is None else duration(predicted.duration_s)
    if predicted.approvals:
        approvals = counted(predicted.approvals, "approval")
        took += f", with {approvals}, each {duration(predicted.approval_s)} after it is due"
    if not predicted.bake_s or predicted.duration_s is None:
        return took
    held = f" with {counted(predicted.holdback, 'device')} held back" if predicted.holdback else ""
    return f"{took}; then a bake of {duration(predicted.bake_s)}{held}"


def trial_lines(tried: Tried, model: str, release: str) -> list[str]:
    """The prediction as text, wave by wave. ``model`` and ``release`` are those of the plan."""
    found, predicted = tried.fleet, tried.prediction
    ineligible = ", ".join(f"{count} {reason}" for reason, count in found.ineligible.items())
    if predicted is None:
        reasons = ", ".join(filter(None, [ineligible, left_out_text(found.left_out)]))
        return [f"No device is eligible: {reasons}."]
    rows = [
        ("devices", f"{predicted.devices}, {found.offline} of them offline now"),
        *today_rows(model, release, found),
        *(("interface", change) for change in found.interface),
        *([("unjudged", tried.unjudged)] if tried.unjudged else []),
        *([("ineligible", ineligible)] if ineligible else []),
        *([("memory", _memory(found))] if found.memory_mib else []),
        ("bytes", f"{size(predicted.bytes)}, without caches"),
        ("in trial", f"at most {predicted.most_in_trial} at once (ceiling {predicted.ceiling})"),
        ("takes", _takes(predicted)),
        ("ends", f"{predicted.ends}: {predicted.text}"),
        *(("warning", text) for text in found.warnings),
    ]
    if predicted.simulated < predicted.devices:
        rows.append(
            ("simulated", f"{counted(predicted.simulated, 'device')}, in the same proportions")
        )
    waves = [
        (
            wave.name,
            wave.cut,
            duration(wave.opens_s),
            None if wave.closes_s is None else duration(wave.closes_s),
        )
        for wave in predicted.waves
    ]
    if found.interface:
        rows.append(("needs", "--changes-interface, or `rollout plan` refuses the changes"))
    return [
        "Dry run: no rollout was planned. Prediction for a good release:",
        *facts(rows),
        "",
        *table(("wave", "cut", "opens after", "closes after"), waves),
    ]
