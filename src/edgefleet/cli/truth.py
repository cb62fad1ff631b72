"""``edgefleet truth``: labels for answers, known later than the answers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_option

if TYPE_CHECKING:
    from edgefleet.protocol.labels import Label
    from edgefleet.protocol.operator import TruthAdded


_FILE_BYTES: Final = 64 << 20
_COLUMNS: Final = "id,truth or since,until,truth"


@verb(
    "add",
    examples=(
        "edgefleet truth add cam-0419 digits 9f2c41d0-12=7 9f2c41d0-13=1",
        "edgefleet truth add cam-0419 digits --file labels.csv",
        "edgefleet truth add cam-0419 digits --since 1790085600 --until 1790085900 --truth 3",
    ),
)
@click.argument("device", metavar="DEVICE")
@click.argument("model", metavar="MODEL")
@click.argument("labels", metavar="[ID=CLASS]...", nargs=-1)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"CSV file with the columns {_COLUMNS}.",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Label all answers from this time on: seconds since 1970, or 2026-09-22T14:00:00Z.",
)
@click.option("--until", metavar="TIME", help="Label all answers up to this time.")
@click.option("--truth", type=int, metavar="CLASS", help="The class of all answers of the span.")
@person_option
@pass_invocation
def add(
    invocation: Invocation,
    *,
    device: str,
    model: str,
    labels: tuple[str, ...],
    file: Path | None,
    since: str | None,
    until: str | None,
    truth: int | None,
    person: str,
) -> None:
    """Add late labels for the answers of a model on a device.

    An answer is named by the id of its request, or by a span of the device's time. A class is an
    index, or several with commas for the items of a batch. The hub keeps the labels until the
    device has them; the device compares them with its answers. `edgefleet rollout show` has the
    accuracies of the release and of the previous one.
    """
    from edgefleet.protocol.labels import LABELS_AT_ONCE
    from edgefleet.protocol.operator import TruthAdded, TruthRequest

    found = [_from_argument(text) for text in labels]
    if file is not None:
        found += _from_file(file)
    if since is not None or until is not None or truth is not None:
        row = {"since": since or "", "until": until or "", "truth": "" if truth is None else truth}
        found.append(_label({name: str(value) for name, value in row.items()}, "--since"))
    if not found:
        raise OperatorError(
            "bad_request",
            "No label is given.",
            field="labels",
            hint="Give ID=CLASS, --file, or --since, --until and --truth.",
        )
    answers: list[TruthAdded] = []
    with reach(invocation) as hub:
        for start in range(0, len(found), LABELS_AT_ONCE):
            part = tuple(found[start : start + LABELS_AT_ONCE])
            request = TruthRequest(device=device, model=model, labels=part, person=person)
            answers.append(hub.add_truth(request))
    added = TruthAdded(added=len(found), waiting=answers[-1].waiting)
    count = counted(added.added, "label")
    invocation.screen.answer(
        added, [f"{count} added for {model} on {device}; {added.waiting} wait for its check-in."]
    )


def _from_argument(text: str) -> Label:
    name, _, truth = text.rpartition("=")
    return _label({"id": name, "truth": truth}, text)


def _from_file(file: Path) -> list[Label]:
    try:
        if file.stat().st_size > _FILE_BYTES:
            raise OperatorError(
                "bad_request", f"{file} is above {_FILE_BYTES} bytes.", field="file"
            )
        with file.open(newline="", encoding="utf-8") as lines:
            return list(_rows(file, lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OperatorError("bad_request", f"{file}: {error}.", field="file") from error


def _rows(file: Path, lines: Iterator[str]) -> Iterator[Label]:
    reader = csv.DictReader(lines, strict=True)
    if "truth" not in (reader.fieldnames or ()):
        raise OperatorError(
            "bad_request", f"{file}: the first line must name the columns {_COLUMNS}.", field="file"
        )
    for row in reader:
        yield _label(row, f"{file}, line {reader.line_num}")


def _label(row: Mapping[str, str | None], where: str) -> Label:
    """The label of one row. Raises OperatorError ``bad_request`` that names ``where``."""
    import msgspec

    from edgefleet.protocol.labels import Label

    fields: dict[str, object] = {"id": (row.get("id") or "").strip()}
    try:
        for name in ("since", "until"):
            if text := (row.get(name) or "").strip():
                fields[name] = _time(text)
        first, *more = [int(one) for one in (row.get("truth") or "").split(",")]
        fields["truth"] = (first, *more) if more else first
        label = msgspec.convert(fields, Label)
    except (ValueError, msgspec.ValidationError) as error:
        raise _wrong(where, str(error)) from error
    if label.fault:
        raise _wrong(where, label.fault)
    return label


def _wrong(where: str, fault: str) -> OperatorError:
    return OperatorError(
        "bad_request",
        f"{where}: {fault}",
        field="labels",
        hint="Give ID=CLASS with a class index, or times such as 2026-09-22T14:00:00Z.",
    )


def _time(text: str) -> float:
    """Seconds since 1970, of a number or of a time that is in UTC if it names no zone."""
    try:
        return float(text)
    except ValueError:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
