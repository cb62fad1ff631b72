"""A simulated rollout as one SVG: devices by outcome over time, with the cut."""

from typing import Final

from edgefleet.sim.virtual.result import Point, Result, RolloutResult
from edgefleet.web.svg import element, polygon_path

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 380, 70, 46, 44
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:16px}"
    ".healthy{fill:#2e7d4f}.in_trial{fill:#d39b2a}.failed{fill:#b3372f}"
    ".cut{fill:none;stroke:#333;stroke-dasharray:4 3}.axis{stroke:#999}"
)
_ACCOUNTS: Final = ("healthy", "in_trial", "failed")


def draw(result: Result) -> str:
    """The chart as the text of an SVG file. Several rollouts are drawn one below the other."""
    panels = [
        element("g", *_panel(result, rollout), transform=f"translate(0 {place * _HEIGHT})")
        for place, rollout in enumerate(result.rollouts)
    ]
    verdicts = ", ".join(
        f"{rollout.model} {rollout.verdict}" if len(panels) > 1 else rollout.verdict
        for rollout in result.rollouts
    )
    drawn = element(
        "svg",
        element("style", _STYLE),
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT * len(panels)}",
        role="img",
        aria_label=f"Simulated rollout {result.scenario}: {verdicts}",
    )
    return f"{drawn}\n"


def _panel(result: Result, rollout: RolloutResult) -> list[str]:
    """One rollout."""
    points = rollout.curve
    span_s = max([1.0, *(one.curve[-1].at_s for one in result.rollouts if one.curve)])
    most = max([1, *(max(point.cut, _total(point)) for point in points)])

    def x(at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * at_s / span_s

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * count / most

    inside: list[str] = []
    below = [0] * len(points)
    for account in _ACCOUNTS:
        above = [
            base + int(getattr(point, account)) for base, point in zip(below, points, strict=True)
        ]
        edge = [(x(p.at_s), y(n)) for p, n in zip(points, above, strict=True)]
        back = [(x(p.at_s), y(n)) for p, n in zip(points, below, strict=True)]
        if edge:
            path = polygon_path([*edge, *reversed(back)])
            inside.append(element("path", d=path, class_=account))
        below = above
    cut = " ".join(f"{x(point.at_s):.1f},{y(point.cut):.1f}" for point in points)
    name = result.scenario
    if len(result.rollouts) > 1:
        name = f"{name}, {rollout.id} ({rollout.model} {rollout.release})"
    inside.append(element("polyline", points=cut, class_="cut"))
    inside += [
        element("line", x1=_LEFT, x2=_WIDTH - 20, y1=y(0), y2=y(0), class_="axis"),
        element("text", f"{most}", x=_LEFT - 8, y=y(most) + 4, text_anchor="end"),
        element("text", "0", x=_LEFT - 8, y=y(0), text_anchor="end"),
        element("text", "start", x=_LEFT, y=_HEIGHT - 22),
        element("text", f"{span_s / 60:.0f} min", x=_WIDTH - 20, y=_HEIGHT - 22, text_anchor="end"),
        element("text", f"{name}: {rollout.text}", x=_LEFT, y=22, class_="title"),
    ]
    for number, account in enumerate(_ACCOUNTS):
        at = _LEFT + 120 + 130 * number
        inside.append(element("rect", x=at, y=_HEIGHT - 33, width=12, height=12, class_=account))
        inside.append(element("text", account.replace("_", " "), x=at + 18, y=_HEIGHT - 22))
    return inside


def _total(point: Point) -> int:
    return point.healthy + point.in_trial + point.failed
