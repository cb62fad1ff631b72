"""Write docs/reference/* from the tables in the code: ``python docs/build.py`` (``--check`` compares).

The tables (endpoints, errors, waits, transitions, limits, metrics) are the source; these pages only
show them. The metrics are parts of docs/gate.md and docs/rollouts.md.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edgefleet.agent import limits as device
from edgefleet.agent.settings import OPTIONS, PREFIX
from edgefleet.agent.table import mermaid as draw_agent
from edgefleet.base.errors import CATALOG, Party
from edgefleet.hub import openapi
from edgefleet.protocol.api import ENDPOINTS
from edgefleet.protocol.device import OutcomeKind, Reason
from edgefleet.protocol.metric_bounds import Bound, Unit
from edgefleet.protocol.metrics import BOUNDS, METRICS
from edgefleet.protocol.permissions import NEEDS
from edgefleet.protocol.why import WAITS, WaitCode
from edgefleet.rollout.evidence.alphas import SHARES
from edgefleet.rollout.lifecycle.table import mermaid as draw_rollout
from edgefleet.serving import limits as serving

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "edgefleet"


def errors() -> Iterator[str]:
    yield "# Errors\n"
    yield (
        "Every error names the party that must act, and has a stable code, a hint and a retry rule. It is one JSON"
        " object: `code`, `message`, `field`, `hint`, `party`, `retry`."
    )
    for party in Party:
        yield (
            f"\n## To be fixed by the {party.value}\n"
            if party is not Party.US
            else "\n## Defects of edgefleet\n"
        )
        for code, kind in CATALOG.items():
            if kind.party is party:
                yield f"### {code}\n\nHTTP {kind.status}, retry: {kind.retry.value.replace('_', ' ')}."
                yield f"{kind.hint}\n"


def api() -> Iterator[str]:
    yield "# The HTTP API\n"
    yield (
        "Bodies are JSON; the types are in `edgefleet.protocol`. Every endpoint needs `Authorization: Bearer <token>`"
        " (the token of a user, the operator token, or the device's credential), except those for *anyone*. A role"
        " has permissions: viewer (account, view), operator (and operate), approver (and approve), admin (and"
        " administer); see [security/model.md](../security/model.md).\n"
    )
    for row in ENDPOINTS:
        takes = (
            "nothing"
            if row.request is None
            else "bytes"
            if row.request is bytes
            else f"`{row.request.__name__}`"
        )
        gives = "bytes" if row.answer is bytes else f"`{row.answer.__name__}`"
        needed = f" with the permission {NEEDS[row.name]}" if row.role == "operator" else ""
        yield f"### {row.name}\n\n`{row.method} {row.path}`: {row.text} For: {row.role}{needed}. Request: {takes}; answer: {gives}.\n"


def why() -> Iterator[str]:
    yield "# Wait codes and reasons of failure\n"
    yield "`edgefleet rollout why`, the page and the log show what an object waits for. Codes are stable.\n"
    yield "## Wait codes\n"
    yield from _members(WaitCode)
    named = ", ".join(f"`{code.value}`" for code, kind in WAITS.items() if kind.needs_a_person)
    yield f"These waits last until a person acts: {named}. `edgefleet doctor` and the page show them.\n"
    yield from _alert()
    yield "## Outcomes of an attempt\n"
    yield from _members(OutcomeKind)
    yield "## Reasons of a failed attempt\n"
    yield from _members(Reason)


def _alert() -> Iterator[str]:
    yield "### Alert on a wait that needs a person\n"
    yield (
        "`GET /metrics` has a sample of `edgefleet_rollout_waits_for_person` for each rollout and code of the list"
        " above. No rules file is shipped; this Prometheus rule covers every such wait:\n"
    )
    yield (
        "```yaml\n"
        "groups:\n"
        "  - name: edgefleet\n"
        "    rules:\n"
        "      - alert: EdgefleetWaitsForPerson\n"
        "        expr: edgefleet_rollout_waits_for_person > 0\n"
        "        for: 10m\n"
        "        annotations:\n"
        '          summary: "Rollout {{ $labels.rollout }} waits for a person: {{ $labels.code }}"\n'
        '          description: "Run: edgefleet rollout why {{ $labels.rollout }}"\n'
        "      - alert: EdgefleetDevicesQuarantined\n"
        "        expr: edgefleet_quarantined_devices > 0\n"
        "        for: 10m\n"
        "        annotations:\n"
        '          summary: "{{ $value }} devices are quarantined"\n'
        '          description: "Run: edgefleet device quarantined"\n'
        "      - alert: EdgefleetDiskFaults\n"
        "        expr: sum(edgefleet_disk_fault_devices) > 0\n"
        "        for: 10m\n"
        "        annotations:\n"
        '          summary: "{{ $value }} devices cannot write their disk"\n'
        '          description: "Run: edgefleet device list --disk-fault"\n'
        "      - alert: EdgefleetServingDown\n"
        '        expr: edgefleet_serving_devices{status="down"} > 0\n'
        "        for: 5m\n"
        "        annotations:\n"
        '          summary: "{{ $value }} online devices do not serve a confirmed release"\n'
        '          description: "Run: edgefleet device list"\n'
        "      - alert: EdgefleetServingEnds\n"
        '        expr: edgefleet_serving_devices{status="unstable"} > 0\n'
        "        for: 10m\n"
        "        annotations:\n"
        '          summary: "The serving process ends by itself on {{ $value }} online devices"\n'
        '          description: "Run: edgefleet device list. The causes: edgefleet_serving_ends"\n'
        "```\n"
    )


def transitions() -> Iterator[str]:
    yield "# Transitions\n"
    yield "Drawn from the tables that the engine and the agent run.\n"
    yield f"## A rollout\n\nTable: `src/edgefleet/rollout/lifecycle/table.py`.\n\n```mermaid\n{draw_rollout().strip()}\n```\n"
    yield f"## The agent\n\nTable: `src/edgefleet/agent/table.py`.\n\n```mermaid\n{draw_agent().strip()}\n```\n"


def limits() -> Iterator[str]:
    yield "# Limits\n"
    yield "Every queue, body, batch, retry and age is bounded. Units are part of the names.\n"
    for path in sorted(SOURCE.glob("*/limits.py")):
        name = f"edgefleet.{path.parent.name}.limits"
        module = importlib.import_module(name)
        yield f"## {name}\n\n| bound | value |\n|---|---|"
        for key, value in vars(module).items():
            if key.isupper() and isinstance(value, int | float):
                yield f"| `{key}` | {value:,} |"
        yield ""


def way_back_rows() -> Iterator[str]:
    """Every wait between a release that hangs and the confirmed one that answers instead."""
    noticed_s = device.PROBE_IDLE_S + device.MISSED_PROBES * (
        device.CONTROL_S + device.PROBE_TRIAL_S
    )
    unanswered_s = device.MISSED_PROBES * device.CONTROL_S
    load_s = serving.WORKER_PATIENT_LOAD_S + serving.WORKER_LOAD_S
    ended_s = device.SERVING_END_S + device.CLOSE_S
    agent_s = 2 * device.CLOSE_S + device.SERVING_STOP_S + device.CLOSE_S
    hung = (
        f"{device.HUNG_TIMES:g} p95 latencies, {device.HUNG_LEAST_S:g} to {device.HUNG_MOST_S:g} s"
    )
    rows = (
        ("the oldest request of a release in trial", hung, "the trial fails: `inference_hung`"),
        ("the first answer to the requests in a trial",
         f"{device.TRIAL_STRETCH:g} confirm times and {device.TRIAL_SLACK_S:g} s",
         "the trial fails: `no_answer`"),
        ("the oldest request of a confirmed release in the shared process", hung,
         "the release moves into a worker: `hung`"),
        ("one request in a worker", f"{serving.WORKER_RUN_S:g} s", "the worker is killed"),
        ("one request in a shadow", f"{serving.SHADOW_RUN_S:g} s",
         "the shadow phase ends: `inference_hung` if it used CPU, else without evidence"),
        ("the oldest request of a release that was swapped out", f"{serving.RETIRE_S:g} s",
         "they are asked of the release that serves now; its worker is killed"),
        ("a request of it that runs on in the shared process", f"{device.STUCK_S:g} s",
         "the process is started again with the confirmed releases"),
        ("the load of a release in a worker", f"{load_s:g} s", "the worker is killed: `load_failed`"),
        ("an Apply over the control socket", f"{device.ACTIVATE_S:g} s",
         "the process is ended, and the Apply is repeated"),
        ("the same, while the process answers no status", f"{unanswered_s:g} s", "as above"),
        ("a status outside of an Apply", f"{noticed_s:g} s", "as above"),
        ("the end of a process that hangs", f"{ended_s:g} s",
         f"SIGKILL, after {device.SERVING_END_S:g} s of SIGTERM"),
        ("the start of the process", f"{device.SERVING_START_S:g} s", "it is ended, and started again"),
        ("the pause between two Applies that fail", f"{device.RESTART_MAX_S:g} s", "the next one"),
        ("SIGTERM to the serving process", f"{serving.STOP_S:g} s", "it ends itself; exit code 1"),
        ("the agent's stop of the serving process", f"{device.SERVING_STOP_S:g} s", "SIGKILL"),
        ("SIGTERM to the agent", f"{agent_s:g} s", "it ends, and kills the serving process"),
    )  # fmt: skip
    yield "| wait for | at most | then |\n|---|---|---|"
    yield from (f"| {what} | {most} | {then} |" for what, most, then in rows)


def agent_options() -> Iterator[str]:
    yield "| option | variable | key | default | |\n|---|---|---|---|---|"
    for one in OPTIONS:
        key = one.name.replace("-", "_")
        shown = f"`{one.default}`" if one.default else ""
        option = f"`--{one.name}{f' {one.metavar}' if one.metavar else ''}`"
        text = f"{one.text[0].upper()}{one.text[1:]}."
        yield f"| {option} | `{PREFIX}{key.upper()}` | `{key}` | {shown} | {text} |"
    yield (
        f"| `--label KEY=VALUE` | `{PREFIX}LABELS` | `[labels]` | | A label; the option may be repeated, the variable is"
        " `KEY=VALUE,KEY=VALUE`. |"
    )


def metric_rows() -> Iterator[str]:
    yield "| metric | reason | fails a wave when | from |\n|---|---|---|---|"
    for metric in METRICS:
        yield f"| `{metric.key}` | `{metric.reason}` | {metric.meaning} | {metric.source} |"


def alpha_rows() -> Iterator[str]:
    yield "| key | tests | share of alpha | with alpha 1 % |\n|---|---|---|---|"
    for share in SHARES:
        yield f"| `{share.key}` | {share.tests} | {share.times:g} | {share.times / 100:.4g} |"
    total = sum(share.times for share in SHARES)
    yield f"| | **sum** | {total:g} | {total / 100:.4g} |"


def bound_sections() -> Iterator[str]:
    for bound in BOUNDS:
        off = "" if bound.off is None else f" {_said(bound, bound.off)} turns the test off."
        yield f"### gate.{bound.field}\n`{bound.option} {_said(bound, bound.default)}`. {bound.text}{off}\n"


_SHARES = (Unit.SHARE, Unit.NUMBER)


def _said(bound: Bound, value: float) -> str:
    """A value of ``bound`` as the option takes it."""
    if bound.unit is Unit.MILLISECONDS:
        return f"{value:g}ms"
    return f"{value * 100:g}%" if bound.unit in _SHARES else f"{value:g}"


def _members(enum: type) -> Iterator[str]:
    """Each member with the comment beside it in the source, the only place that explains it."""
    path = Path(sys.modules[enum.__module__].__file__ or "")
    for line in path.read_text().splitlines():
        name, _, rest = line.strip().partition(" = ")
        if name in enum.__members__:  # type: ignore[attr-defined]
            comment = rest.partition("  # ")[2]
            value = enum[name].value  # type: ignore[index]
            yield f"### {value}\n\n{comment[:1].upper() + comment[1:] + '.' if comment else ''}\n"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "errors": errors,
    "api": api,
    "why": why,
    "transitions": transitions,
    "limits": limits,
}


SECTIONS: dict[tuple[str, str], Callable[[], Iterator[str]]] = {
    ("agent", "options"): agent_options,
    ("gate", "metrics"): metric_rows,
    ("gate", "alphas"): alpha_rows,
    ("decisions/0009-a-gate-that-may-be-looked-at", "alphas"): alpha_rows,
    ("rollouts", "metrics"): bound_sections,
    ("way-back", "waits"): way_back_rows,
}
"""Parts of pages that people write, by page (its path in docs/, without the suffix) and mark: ``<!-- metrics -->`` and its end."""


def render(name: str) -> str:
    return "\n".join(PAGES[name]()).strip() + "\n"


def with_sections(name: str) -> str:
    """The page docs/``name``.md with its marked parts made anew."""
    text = (HERE / f"{name}.md").read_text()
    for (page, mark), make in SECTIONS.items():
        if page == name:
            part = "\n".join(make()).strip()
            marked = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->\n)", re.DOTALL)
            text = marked.sub(lambda marks, part=part: f"{marks[1]}{part}\n{marks[2]}", text)  # type: ignore[misc]
    return text


def main() -> int:
    stale = []
    pages = {HERE / "reference" / f"{name}.md": render(name) for name in PAGES}
    pages[HERE / "reference" / "openapi.json"] = openapi.document().decode()
    pages |= {HERE / f"{name}.md": with_sections(name) for name, _ in SECTIONS}
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            stale.append(str(path))
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    print(("stale: " if "--check" in sys.argv else "written: ") + (", ".join(stale) or "none"))
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
