"""No module of a pure core changes a struct, or passes a value, in a way that no checker sees."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def untyped(source: str) -> list[str]:
    """Constructs that a type checker cannot check: ``Any``, ``**name: object``, msgspec's own replace."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="msgspec.structs", names=names):
                found += [f"line {node.lineno}: msgspec.structs.{name.name}" for name in names]
            case ast.Attribute(attr="replace", value=ast.Attribute(attr="structs")):
                found.append(f"line {node.lineno}: msgspec.structs.replace")
            case ast.Name(id="Any") | ast.Attribute(attr="Any"):
                found.append(f"line {node.lineno}: Any")
            case ast.arguments(kwarg=ast.arg(annotation=ast.Name(id="object"))):
                found.append(f"line {node.kwarg.lineno if node.kwarg else 0}: **changes: object")
            case _:
                pass
    return found


def core_files() -> Iterator[Path]:
    """The modules of the contract ``pure`` in pyproject.toml, and those of the protocol."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    pure = next(one for one in contracts["contracts"] if one["id"] == "pure")
    for name in (*pure["source_modules"], "edgefleet.protocol"):
        place = SOURCE / name.replace(".", "/")
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("path", [*core_files()], ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_core_module_changes_structs_by_typed_fields(path: Path) -> None:
    found = untyped(path.read_text())
    if path.name == "typed_replace.py":  # the one place that gives msgspec's replace its types
        found = [one for one in found if not one.endswith("msgspec.structs.replace")]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        "from msgspec.structs import replace",
        "import msgspec\nmsgspec.structs.replace(state, x=1)",
        "def change(**changes: object) -> None: ...",
        "from typing import Any\nvalue: Any = 1",
    ],
)
def test_a_planted_untyped_change_is_found(planted: str) -> None:
    assert untyped(planted)
