"""No message says "1 devices": a count and its noun come from ``base.texts.counted``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted(
    file
    for part in ("agent", "cli", "client", "hub", "optimize", "protocol", "rollout", "web")
    for file in Path("src/edgefleet", part).rglob("*.py")
    if "demo" not in file.parts  # its fleet has hundreds of devices
)
NOUNS = (
    "approvals", "artifacts", "cases", "claims", "devices", "errors", "groups", "labels", "models",
    "pairs", "releases", "requests", "rollbacks", "rollouts", "scores", "starts", "windows",
)  # fmt: skip


def unguarded(source: str) -> Iterator[str]:
    """The counts in f-strings with a noun that is always plural.

    A count of a whole ("2 of 3 devices", "at least 5 devices") or of a constant has no singular.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for before, count, after in zip(
            ["", *node.values], node.values, node.values[1:], strict=False
        ):
            if not (isinstance(count, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            text = str(before.value) if isinstance(before, ast.Constant) else ""
            word = str(after.value).lstrip(" ").split(" ")[0].rstrip(".,;:)")
            is_whole = text.rstrip().endswith((" of", "Of", "at least", "at most", " the", " a"))
            is_large = count.format_spec is not None  # as 1,003
            is_constant = isinstance(count.value, ast.Name) and count.value.id.isupper()
            if (
                word in NOUNS
                and str(after.value)[:1] == " "
                and not (is_whole or is_large or is_constant)
            ):
                yield f"{ast.unparse(count)} {word}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file)[14:])
def test_every_count_has_its_noun_in_the_right_number(file: Path) -> None:
    assert list(unguarded(file.read_text())) == []


def test_the_check_finds_a_plural_of_one() -> None:
    assert len(list(unguarded('f"{count} devices failed"'))) == 1
    assert list(unguarded('f"{bad} of {size} devices failed"')) == []
    assert list(unguarded('f"at most {MOST} labels"')) == []
