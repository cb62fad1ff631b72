"""``edgefleet model field``: latency and memory of a model's releases in the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgefleet.base.texts import utc_text
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table

if TYPE_CHECKING:
    from edgefleet.protocol.field_figures import FieldVariant, ModelField


@verb(
    "field",
    examples=("edgefleet model field digits", "edgefleet model field digits --json"),
)
@click.argument("model", metavar="MODEL")
@pass_invocation
def field(invocation: Invocation, model: str) -> None:
    """Show latency and memory of a model's releases in the field, by hardware class.

    Latency is that of requests in the serving process of devices, with the time that they wait
    there, beside that of the publisher's machine (bench), which a release of `model optimize` has
    in its lineage. `model optimize --field FILE` reads the answer of --json.
    """
    with reach(invocation) as hub:
        found = hub.model_field(model)
    invocation.screen.answer(found, _lines(found))


def _lines(found: ModelField) -> list[str]:
    if not found.profiles:
        return [f"No device has reported requests to {found.model} since {utc_text(found.since)}."]
    head = ("release", "recipe", "requests", "devices", "p50", "p10", "CPU", "memory", "bench p50")
    lines = [f"{found.model}, since {utc_text(found.since)}"]
    for profile in found.profiles:
        lines += ["", f"{profile.profile}:", *table(head, map(_row, profile.variants))]
        lines += [*profile.findings]
    return lines


def _row(one: FieldVariant) -> tuple[object, ...]:
    return (
        one.release,
        one.name,
        f"{one.requests:,}",
        f"at least {one.devices:,}",
        _ms(one.latency_us_p50),
        _ms(one.latency_us_p10),
        _ms(one.cpu_us),
        f"{one.memory_mib} MiB" if one.memory_mib else None,
        _ms(one.bench.latency_us_p50 if one.bench else None),
    )


def _ms(us: float | None) -> str | None:
    return None if us is None else f"{us / 1e3:.3g} ms"
