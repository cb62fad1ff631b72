"""Every knob of a plan: its place in the plan, and the option that sets it.

A test compares the table with the fields of RolloutSpec, so that every field has an option.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.cli.rollout.parsing import BUDGET, INSTANT, LABELS, SIZE, WAVE, WINDOW
from edgefleet.cli.values import DURATION, RATE, WAVES, duration, percent
from edgefleet.protocol.metric_bounds import Bound, Unit
from edgefleet.protocol.metrics import BOUNDS
from edgefleet.protocol.rollout import Rollback, RolloutSpec

_DEFAULTS: Final[Mapping[str, Any]] = msgspec.to_builtins(RolloutSpec(model="", release=""))


@dataclass(frozen=True, slots=True)
class Knob:
    """One knob. ``path`` is its place in the plan.

    ``shown`` writes a value of the plan as the option reads it. ``to_plan`` converts a value of the
    option to a value of the plan.
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
        """The name in a plan, in the documentation and in a refusal: ``gate.soak_s``."""
        return ".".join(self.path)

    @property
    def parameter(self) -> str:
        """The parameter name in click."""
        return self.option.removeprefix("--").replace("-", "_")


def _share(value: float) -> str:
    return percent(value).replace(" ", "")


def _plain(value: float) -> str:
    return f"{value:g}"


def _ms(value: float) -> str:
    return f"{value:g}ms"


def _in_ms(seconds: float) -> float:
    return seconds * 1000


def _hidden(_: object) -> str:
    return ""


_METAVARS: Final = {
    Unit.PERCENT: "PERCENT",
    Unit.MIB_PER_HOUR: "MIB",
    Unit.CELSIUS: "DEGREES",
    Unit.PERCENT_PER_HOUR: "PERCENT",
}


def _bound(bound: Bound) -> Knob:
    """The option of a bound in the table of metrics."""
    path = ("gate", bound.field)
    match bound.unit:
        case Unit.MILLISECONDS:
            return Knob(
                path, bound.option, DURATION, "DURATION", bound.text, shown=_ms, to_plan=_in_ms
            )
        case Unit.PERCENT | Unit.MIB_PER_HOUR | Unit.CELSIUS | Unit.PERCENT_PER_HOUR:
            kind = click.FloatRange(0)
            metavar = _METAVARS[bound.unit]
            return Knob(path, bound.option, kind, metavar, bound.text, shown=_plain)
        case _:
            return Knob(path, bound.option, RATE, "SHARE", bound.text, shown=_share)


def _gate() -> tuple[Knob, ...]:
    def gate(
        field: str,
        option: str,
        kind: click.ParamType[Any] | type | None,
        metavar: str,
        text: str,
        **more: Any,
    ) -> Knob:
        return Knob(("gate", field), option, kind, metavar, text, **more)

    return (
        *(_bound(bound) for bound in BOUNDS),
        gate("alpha", "--alpha", RATE, "SHARE",
             "False-alarm rate: how often a good release may be rolled back by chance.",
             shown=_share),
        gate("min_sample", "--min-sample", click.IntRange(1), "DEVICES",
             "Finished devices that a verdict needs."),
        gate("soak_s", "--soak", DURATION, "DURATION",
             "How long a wave must pass before the next opens.", shown=duration),
        gate("confirm_after_s", "--confirm-after", DURATION, "DURATION",
             "How long a device must be healthy before it confirms.", shown=duration),
        gate("silence_s", "--silence", DURATION, "DURATION",
             "A device silent for this long after activating has failed.", shown=duration),
        gate("patience_s", "--patience", DURATION, "DURATION",
             "How long a wave waits for stragglers.", shown=duration),
        gate("min_requests", "--min-requests", click.IntRange(1), "REQUESTS",
             "Inference requests of each cohort from which its quality is judged."),
        gate("require_traffic", "--require-traffic", None, "",
             "A wave passes only once the release has served --min-requests."),
        gate("ask_p", "--ask", RATE, "SHARE",
             "At the end of the fleet, ask a person up to this p-value. 100%: after any rate above "
             "the limit.", shown=_share),
        gate("rollback", "--rollback", click.Choice([one.value for one in Rollback]), "WHAT",
             "The devices that give a failed release back: 'all', or only the 'part' on which it "
             "fails, if the evidence names one."),
        gate("classes", "--classes", LABELS, "LABELS",
             "Labels whose values are tested apart, as profiles are: gpu,site-kind.",
             shown=",".join),
    )  # fmt: skip


KNOBS: Final[tuple[Knob, ...]] = (
    Knob(("model",), "--model", str, "NAME", "The model. Required, here or in the file."),
    Knob(("release",), "--release", str, "NAME",
         "The release that devices should run. Required, here or in the file."),
    Knob(("selector",), "--selector", str, "SELECTOR",
         "Kubernetes label selector; empty selects all."),
    Knob(("waves",), "--wave", WAVE, "WAVE",
         "One wave, instead of --waves: 10%, 50 (devices), site=lyon, or '10% site=lyon'; repeat "
         "it for the next wave. Devices that are in no wave come last.", many=True, shown=_hidden),
    *_gate(),
    Knob(("exposure", "first"), "--exposure-first", click.IntRange(1), "DEVICES",
         "Devices that may be in trial before any has confirmed."),
    Knob(("exposure", "growth"), "--exposure-growth", click.FloatRange(0), "FACTOR",
         "Further devices in trial for each healthy device.", shown=_plain),
    Knob(("exposure", "ceiling"), "--exposure-ceiling", RATE, "SHARE",
         "Largest share of the fleet that may be in trial at once.", shown=_share),
    Knob(("pace", "starts_per_minute"), "--starts-per-minute", click.IntRange(0), "DEVICES",
         "Devices that may start in a minute; 0 is unlimited."),
    Knob(("pace", "bytes_per_s"), "--bytes-per-s", SIZE, "SIZE",
         "Artifact bytes offered in a second, such as 2MiB; 0 is unlimited."),
    Knob(("pace", "bytes_per_s_per_site"), "--bytes-per-s-per-site", SIZE, "SIZE",
         "Artifact bytes offered in a second at each site."),
    Knob(("site_label",), "--site-label", str, "LABEL", "The label that tells sites apart."),
    Knob(("budgets",), "--budget", BUDGET, "LABEL=DEVICES",
         "Devices that may be in trial for each value of the label, such as site=1; repeatable.",
         many=True, shown=_hidden),
    Knob(("windows",), "--window", WINDOW, "WINDOW",
         "When devices may start, such as 'mon-fri 22:00-06:00 Europe/Paris'; time zone 'device' "
         "is the zone of each device; repeatable.", many=True, shown=_hidden),
    Knob(("start_at",), "--start-at", INSTANT, "TIME",
         "When the rollout starts by itself, such as 2026-09-22T02:00+02:00.", shown=_hidden),
    Knob(("approval", "people"), "--approval-people", click.IntRange(0, 2), "PEOPLE",
         "Users who must approve before devices start; the one who plans cannot."),
    Knob(("approval", "each_wave"), "--approval-each-wave", None, "",
         "Require the approvals for each wave, not once for the plan."),
    Knob(("follow",), "--follow", None, "",
         "Give the release to devices that enrol after the end, too."),
    Knob(("bake_s",), "--bake", DURATION, "DURATION",
         "How long the release is judged after the last wave (bake time); 0 turns it off.",
         shown=duration),
    Knob(("holdback_percent",), "--holdback", click.FloatRange(0, 50), "PERCENT",
         "Devices that get the release after the bake and are its control until then, in fleets of "
         "100 and more.", shown=_plain),
    Knob(("bake_revert_alone",), "--bake-revert-alone", None, "",
         "Roll back also if no control shows whether the release is the cause, and after the "
         "bake."),
    Knob(("shadow", "share"), "--shadow", RATE, "SHARE",
         "Share of the live requests that the release answers before its trial, too, for no "
         "caller: the answers are compared. 0 turns it off.", shown=_share),
    Knob(("shadow", "samples"), "--shadow-samples", click.IntRange(1), "REQUESTS",
         "Compared requests that end the shadow phase."),
    Knob(("shadow", "for_s"), "--shadow-for", DURATION, "DURATION",
         "Longest time of the shadow phase; the trial then goes on with the evidence there is.",
         shown=duration),
    Knob(("shadow", "max_disagreement"), "--shadow-disagreement", RATE, "SHARE",
         "Largest share of the compared requests on which the answers may differ.", shown=_share),
    Knob(("skip_ineligible",), "--skip-ineligible", None, "",
         "Skip devices that the release does not fit, instead of refusing the plan."),
    Knob(("changes_interface",), "--changes-interface", None, "",
         "Plan a release with other inputs, outputs or task than the one that runs today: its "
         "clients are ready."),
    Knob(("again",), "--again", str, "REASON",
         "Give a release that was taken back a second chance, also on the devices that failed it; "
         "the reason is kept."),
)  # fmt: skip

_PERCENTS: Final = "waves"


class KnobOption(click.Option):
    """An option that shows the default of the plan as its own."""

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
                help="Percent of the fleet in each wave; each wave contains the waves before it.",
            )(command)  # fmt: skip
    return command


def spec_of(options: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> RolloutSpec:
    """The plan of the options. A knob without an option is as in ``base``, else the default.

    Raises OperatorError ``setting_invalid`` if a required value is missing or a value is invalid.
    """
    plan: dict[str, Any] = dict(base or {})
    if options.get(_PERCENTS) is not None:
        if options.get("wave"):
            raise click.UsageError("Use --waves or --wave, not both.")
        plan["waves"] = msgspec.to_builtins(options[_PERCENTS])
    for knob in KNOBS:
        value = options.get(knob.parameter)
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
            "setting_invalid",
            f"{text}.",
            field=named,
            hint="Fix the value: docs/rollouts.md lists every knob.",
        ) from error


def default_of(knob: Knob) -> object:
    """The value of the plan without the option. None if the option is required."""
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
