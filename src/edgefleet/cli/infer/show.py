"""An answer of the model, as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet.client.inference.tensors import InferAnswer, Tensor

_VALUES: Final = 8  # of an item
_ITEMS: Final = 16
_TEXT_CHARS: Final = 60


class OutputView(Wire, frozen=True, kw_only=True):
    """One output. ``data`` is flat and row-major; numbers that are not finite are texts."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Any, ...]


class InferReport(Wire, frozen=True, kw_only=True):
    """The result of ``edgefleet infer``. ``took_ms`` is the time of the whole request.

    ``answered_by`` is ``local`` or ``fallback``. None from a device without a fallback.
    """

    model: str
    release: str
    id: str
    generation: int | None = None
    took_ms: float
    answered_by: str | None = None
    outputs: tuple[OutputView, ...]


def infer_report(answer: InferAnswer, headers: Mapping[str, str], took_s: float) -> InferReport:
    from edgefleet.client.inference.client import ANSWERED_BY, GENERATION

    generation = headers.get(GENERATION, "")
    return InferReport(
        model=answer.model,
        release=answer.release,
        id=answer.id,
        generation=int(generation) if generation.isdecimal() else None,
        took_ms=round(took_s * 1000, 2),
        answered_by=headers.get(ANSWERED_BY),
        outputs=tuple(
            OutputView(
                name=name,
                datatype=answer.datatypes[name],
                shape=tensor.shape,
                data=tuple(map(_plain, tensor.ravel().tolist())),
            )
            for name, tensor in answer.tensors.items()
        ),
    )


def infer_lines(answer: InferAnswer, top: int, names: Mapping[str, Sequence[str]]) -> list[str]:
    """The release, then each output: the ``top`` classes of scores, else the first values.

    An output is shown as scores if it is [batch, classes] of floats. ``names`` are the names of the
    classes by output.
    """
    lines = [f"{answer.model} {answer.release}".strip()]
    for name, tensor in answer.tensors.items():
        lines.append(f"{name}  {answer.datatypes[name]} {list(tensor.shape)}")
        items = tensor.reshape(tensor.shape[0], -1) if tensor.ndim > 1 else tensor.reshape(1, -1)
        is_scores = (
            top > 0 and tensor.ndim == 2 and tensor.dtype.kind == "f" and tensor.shape[1] > 1
        )
        for number, item in enumerate(items[:_ITEMS]):
            shown = _top(item, top, names.get(name, ())) if is_scores else _values(item)
            lines.append(f"  {number}  {shown}" if len(items) > 1 else f"  {shown}")
        if len(items) > _ITEMS:
            lines.append(f"  ... and {len(items) - _ITEMS} more; --json has all")
    return lines


def _top(scores: Tensor, top: int, names: Sequence[str]) -> str:
    best = (-scores).argsort(kind="stable")[:top].tolist()
    return ", ".join(
        f"{names[index] if index < len(names) else index}: {float(scores[index]):.4g}"
        for index in best
    )


def _values(item: Tensor) -> str:
    shown = [_short(value) for value in item[:_VALUES].tolist()]
    return ", ".join(shown) + (f", ... ({item.size})" if item.size > _VALUES else "")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}..."


def _plain(value: object) -> object:
    match value:
        case float() if value - value != 0.0:
            return str(value)
        case bytes():
            return value.hex()
        case _:
            return value
