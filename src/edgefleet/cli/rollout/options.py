"""Every knob of a plan: where it stands in the plan, and the option that sets it.

A test holds the table against the fields of RolloutSpec, so that none is without its option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.cli.rollout.parsing import BUDGET, INSTANT, SIZE, WAVE, WINDOW
from edgefleet.cli.values import DURATION, RATE, WAVES, duration, percent
from edgefleet.protocol.metrics import BOUNDS, Bound, Unit
from edgefleet.protocol.rollout import RolloutSpec

_DEFAULTS: Final[Mapping[str, Any]] = msgspec.to_builtins(RolloutSpec(model="", release=""))


@dataclass(frozen=True, slots=True)
class Knob:
    """``path`` is its place in the plan.

    ``shown`` writes the plan's value as the option takes it, ``to_plan`` goes the other way.
    """

    path: tuple[str, ...]
    option: str
    kind: click.ParamType[Any] | type | None  # None: a flag
    metavar: str
    help: str
    shown: Callable[[Any], str] = str
    to_plan: Callable[[Any], object] = lambda value: value
    many: bool = False

    @property
    def name(self) -> str:
        """``gate.soak_s``: what it is called in a plan, its documentation and a refusal."""
        return ".".join(self.path)

    @property
    def parameter(self) -> str:
        """What click calls it."""
        return self.option.removeprefix("--").replace("-", "_")


def _share(value: float) -> str:
    return percent(value).replace(" ", "")


def _plain(value: float) -> str:
    return f"{value:g}"


def _ms(value: float) -> str:
    return f"{value:g}ms"


def _in_ms(seconds: float) -> float:
    return seconds * 1000


def _unsaid(_: object) -> str:
    return ""


def _bound(bound: Bound) -> Knob:
    """The option of a bound in the table of metrics."""
    path = ("gate", bound.field)
    match bound.unit:
        case Unit.MILLISECONDS:
            return Knob(
                path, bound.option, DURATION, "DURATION", bound.text, shown=_ms, to_plan=_in_ms
            )
        case Unit.PERCENT:
            kind = click.FloatRange(0)
            return Knob(path, bound.option, kind, "PERCENT", bound.text, shown=_plain)
        case _:
            return Knob(path, bound.option, RATE, "SHARE", bound.text, shown=_share)


def _gate() -> tuple[Knob, ...]:
    def gate(
        field: str,
        option: str,
        kind: click.ParamType[Any] | type,
        metavar: str,
        text: str,
        **more: Any,
    ) -> Knob:
        return Knob(("gate", field), option, kind, metavar, text, **more)

    return (
        *(_bound(bound) for bound in BOUNDS),
        gate("alpha", "--alpha", RATE, "SHARE",
             "A good release is taken back by bad luck at most so often.", shown=_share),
        gate("min_sample", "--min-sample", click.IntRange(1), "DEVICES",
             "Finished devices before any verdict."),
        gate("soak_s", "--soak", DURATION, "DURATION",
             "How long a passing wave must stand before the next opens.", shown=duration),
        gate("confirm_after_s", "--confirm-after", DURATION, "DURATION",
             "Healthy time on the device before it confirms.", shown=duration),
        gate("silence_s", "--silence", DURATION, "DURATION",
             "A device silent for this long after activating has failed.", shown=duration),
        gate("patience_s", "--patience", DURATION, "DURATION",
             "How long stragglers are waited for.", shown=duration),
        gate("min_requests", "--min-requests", click.IntRange(1), "REQUESTS",
             "Inference requests on each side before quality is judged."),
    )  # fmt: skip


KNOBS: Final[tuple[Knob, ...]] = (
    Knob(("model",), "--model", str, "NAME", "The model. Required, here or in the file."),
    Knob(("release",), "--release", str, "NAME",
         "The release that devices shall run. Required, here or in the file."),
    Knob(("selector",), "--selector", str, "SELECTOR",
         "Kubernetes label selector; empty selects all."),
    Knob(("waves",), "--wave", WAVE, "WAVE",
         "One wave, instead of --waves: 10%, 50 (devices), site=lyon, or '10% site=lyon'; said "
         "again for the next. Devices that no wave names come last.", many=True, shown=_unsaid),
    *_gate(),
    Knob(("exposure", "first"), "--exposure-first", click.IntRange(1), "DEVICES",
         "So many may be in trial before any has confirmed."),
    Knob(("exposure", "growth"), "--exposure-growth", click.FloatRange(0), "FACTOR",
         "Then this many for each that is healthy.", shown=_plain),
    Knob(("pace", "starts_per_minute"), "--starts-per-minute", click.IntRange(0), "DEVICES",
         "Devices that may begin in a minute; 0 is unlimited."),
    Knob(("pace", "bytes_per_s"), "--bytes-per-s", SIZE, "SIZE",
         "Artifact bytes offered in a second, 2MiB say; 0 is unlimited."),
    Knob(("pace", "bytes_per_s_per_site"), "--bytes-per-s-per-site", SIZE, "SIZE",
         "The same for each site."),
    Knob(("site_label",), "--site-label", str, "LABEL", "The label that tells sites apart."),
    Knob(("budgets",), "--budget", BUDGET, "LABEL=DEVICES",
         "At most so many in trial for each value of the label, site=1 say; may be said again.",
         many=True, shown=_unsaid),
    Knob(("windows",), "--window", WINDOW, "WINDOW",
         "When devices may begin, 'mon-fri 22:00-06:00 Europe/Paris' say; time zone 'device' is "
         "each device's own; may be said again.", many=True, shown=_unsaid),
    Knob(("start_at",), "--start-at", INSTANT, "TIME",
         "When it starts by itself, 2026-09-22T02:00+02:00 say.", shown=_unsaid),
    Knob(("approval", "people"), "--approval-people", click.IntRange(0, 2), "PEOPLE",
         "How many must approve before devices begin."),
    Knob(("approval", "each_wave"), "--approval-each-wave", None, "",
         "They approve each wave, not the plan once."),
    Knob(("follow",), "--follow", None, "", "Give it to devices that enrol after the end, too."),
    Knob(("skip_ineligible",), "--skip-ineligible", None, "",
         "Leave out devices that no variant is for, instead of refusing the plan."),
)  # fmt: skip

_PERCENTS: Final = "waves"


class KnobOption(click.Option):
    """An option that shows a default which it does not have: the plan's own."""

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


def knob_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each knob, and ``--waves`` for the usual waves."""
    for knob in reversed(KNOBS):
        command = _option(knob)(command)
        if knob.path == ("waves",):
            command = click.option(
                "--waves", _PERCENTS, cls=KnobOption, type=WAVES, metavar="PERCENTS",
                show_default="1,10,100",
                help="Percent of the fleet in each wave; each holds the ones before it.",
            )(command)  # fmt: skip
    return command


def spec_of(said: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> RolloutSpec:
    """The plan that the options amount to; what none says is as in ``base``, else the default.

    Raises OperatorError ``setting_invalid`` for what is missing and what no plan can hold.
    """
    plan: dict[str, Any] = dict(base or {})
    if said.get(_PERCENTS) is not None:
        if said.get("wave"):
            raise click.UsageError("Say --waves or --wave, not both.")
        plan["waves"] = msgspec.to_builtins(said[_PERCENTS])
    for knob in KNOBS:
        value = said.get(knob.parameter)
        if value is None or value == ():
            continue
        *above, last = knob.path
        place = plan
        for name in above:
            place[name] = dict(place.get(name, {}))
            place = place[name]
        place[last] = msgspec.to_builtins(knob.to_plan(value))
    for field in ("model", "release"):
        if field not in plan:
            option = next(knob.option for knob in KNOBS if knob.path == (field,))
            raise OperatorError("setting_invalid", f"Missing option '{option}'.", field=option)
    try:
        return msgspec.convert(plan, RolloutSpec)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `")
        named = where.rstrip("`").removeprefix("$").lstrip(".") or None
        raise OperatorError(
            "setting_invalid", f"{text}.", field=named, hint="docs/rollouts.md names every knob."
        ) from error


def default_of(knob: Knob) -> object:
    """What the plan holds when nothing is said; None for what must be said."""
    value: Any = _DEFAULTS
    for name in knob.path:
        value = value[name]
    return value or None if isinstance(value, (str, list)) else value


def _option(knob: Knob) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = default_of(knob)
    shown = "" if default is None or knob.kind is None else knob.shown(default)
    if knob.kind is None:
        return click.option(knob.option, is_flag=True, default=None, help=knob.help)
    return click.option(
        knob.option,
        cls=KnobOption,
        type=knob.kind,
        multiple=knob.many,
        metavar=knob.metavar,
        show_default=shown or False,
        help=knob.help,
    )
