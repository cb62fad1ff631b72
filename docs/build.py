"""Write docs/reference/*.md from the tables in the code: ``python docs/build.py`` (``--check`` compares).

The tables (endpoints, errors, waits, transitions, limits) are the source; these pages only show them.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edgefleet.agent.table import mermaid as draw_agent
from edgefleet.base.errors import CATALOG, Party
from edgefleet.protocol.api import ENDPOINTS
from edgefleet.protocol.device import OutcomeKind, Reason
from edgefleet.protocol.why import NEEDS_A_PERSON, WaitCode
from edgefleet.rollout.lifecycle.table import mermaid as draw_rollout

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
        " (the operator's token or the device's credential), except those for *anyone*.\n"
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
        yield f"### {row.name}\n\n`{row.method} {row.path}`: {row.text} For: {row.role}. Request: {takes}; answer: {gives}.\n"


def why() -> Iterator[str]:
    yield "# Wait codes and reasons of failure\n"
    yield "`edgefleet rollout why`, the page and the log show what an object waits for. Codes are stable.\n"
    yield "## Wait codes\n"
    yield from _members(WaitCode)
    named = ", ".join(f"`{code.value}`" for code, needed in NEEDS_A_PERSON.items() if needed)
    yield f"These waits last until a person acts: {named}. `edgefleet doctor` and the page show them.\n"
    yield "## Outcomes of an attempt\n"
    yield from _members(OutcomeKind)
    yield "## Reasons of a failed attempt\n"
    yield from _members(Reason)


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


def render(name: str) -> str:
    return "\n".join(PAGES[name]()).strip() + "\n"


def main() -> int:
    stale = []
    for name in PAGES:
        path = HERE / "reference" / f"{name}.md"
        text = render(name)
        if not path.exists() or path.read_text() != text:
            stale.append(str(path))
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    print(("stale: " if "--check" in sys.argv else "written: ") + (", ".join(stale) or "none"))
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
