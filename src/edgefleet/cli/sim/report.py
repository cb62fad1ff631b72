"""The result of a simulated run as text."""

from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import duration
from edgefleet.sim.virtual.result import Result, RolloutResult
from edgefleet.sim.virtual.swarm import SwarmResult


def run_lines(result: Result) -> list[str]:
    """The lines of one run."""
    is_alone = len(result.rollouts) == 1
    lines = facts(
        (
            ("scenario", result.scenario),
            ("devices", result.devices),
            ("seed", result.seed),
            *(_rollout_facts(result.rollouts[0]) if is_alone else ()),
            ("violations", result.violations),
            ("events", f"{result.events} ({result.events_per_s} a second)"),
            ("took", f"{result.wall_s:.1f} s, {result.peak_rss_mib} MiB"),
            ("digest", result.trace_digest),
        )
    )
    for rollout in result.rollouts:
        if not is_alone:
            named = ("rollout", f"{rollout.id} ({rollout.model} {rollout.release})")
            lines += ["", *facts((named, *_rollout_facts(rollout)))]
        lines += ["", *_wave_lines(rollout)]
    if result.faults:
        lines += ["", *table(("fault", "count"), list(result.faults.items()))]
    lines += [f"VIOLATED {one.checker}: {one.text} (at {one.at:.1f})" for one in result.violated]
    return lines


def _rollout_facts(rollout: RolloutResult) -> tuple[tuple[str, object], ...]:
    return (
        ("verdict", f"{rollout.verdict} ({rollout.reason})"),
        ("", rollout.text),
        ("ended after", "-" if rollout.ended_s is None else duration(rollout.ended_s)),
        ("exposed", rollout.exposed),
    )


def _wave_lines(rollout: RolloutResult) -> list[str]:
    return table(
        ("wave", "cut", "opened", "verdict", "reason"),
        [
            (wave.name, wave.cut, duration(wave.opened_s), wave.verdict, wave.reason)
            for wave in rollout.waves
        ],
    )


def swarm_lines(result: SwarmResult) -> list[str]:
    """The lines of a swarm."""
    lines = facts(
        (
            ("seeds", result.seeds),
            ("devices each", result.devices),
            ("violations", result.violations),
            ("unfinished", result.unfinished),
            ("ended by a person", result.persons),
            ("events", result.events),
            ("failing seeds", ", ".join(map(str, result.failing)) or "none"),
        )
    )
    lines += ["", *table(("verdict", "runs"), list(result.verdicts.items()))]
    lines += ["", *table(("fault", "count"), list(result.faults.items()))]
    return lines
