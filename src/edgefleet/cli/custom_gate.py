"""A custom gate, loaded from the operator's own file or package."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import EValue, Evidence, GateSpec, Judgement, Verdict
from edgefleet.rollout.evidence.gate import Gate

GATE_BROKEN: Final = "gate_broken"
_ASKED_WITH: Final = ("opened_at", "before", "now")


@dataclass(frozen=True, slots=True)
class Guarded:
    """Wraps a custom gate: if the gate raises, the judgement is inconclusive with the error."""

    gate: Callable[..., object]
    name: str

    def __call__(
        self,
        evidence: Evidence,
        spec: GateSpec,
        *,
        opened_at: float,
        before: Judgement | None,
        now: float,
    ) -> Judgement | EValue:
        try:
            found = self.gate(evidence, spec, opened_at=opened_at, before=before, now=now)
        except Exception as error:  # noqa: BLE001 - the operator's code; `why` shows the error
            return self._broken(f"{type(error).__name__}: {error}", evidence, now)
        if not isinstance(found, Judgement | EValue):
            got = type(found).__name__
            text = f"it returned {got} instead of a Judgement or an EValue"
            return self._broken(text, evidence, now)
        return found

    def _broken(self, text: str, evidence: Evidence, now: float) -> Judgement:
        return Judgement(
            verdict=Verdict.INCONCLUSIVE,
            reason=GATE_BROKEN,
            text=f"The gate {self.name} is broken: {text[:300]}. The verdict is inconclusive.",
            at=now,
            evidence=evidence,
        )


def load_gate(target: str) -> Gate:
    """The gate at ``package.module:name`` or ``path/to/file.py:name``.

    Raises OperatorError ``setting_invalid`` if it cannot be loaded or is not a gate.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise _refused(f"{target!r} is not of the form MODULE:NAME.")
    found: Any = getattr(_module(place), name, None)
    if found is None:
        raise _refused(f"{place} has no {name}.")
    if not callable(found):
        raise _refused(f"{name} of {place} is not a function.")
    try:
        inspect.signature(found).bind(None, None, **dict.fromkeys(_ASKED_WITH))
    except TypeError as error:
        raise _refused(f"{name} of {place} is not a gate: {error}.") from error
    return Guarded(found, target)


def _module(place: str) -> ModuleType:
    try:
        return _file(Path(place)) if place.endswith(".py") else import_module(place)
    except Exception as error:
        raise _refused(f"{place} cannot be loaded: {type(error).__name__}: {error}.") from error


def _file(path: Path) -> ModuleType:
    name = f"edgefleet_own_gate_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses find their module there
    spec.loader.exec_module(module)
    return module


def _refused(text: str) -> OperatorError:
    return OperatorError(
        "setting_invalid",
        text,
        field="--gate",
        hint="Use package.module:name or path/to/file.py:name, as in docs/own-gate.md.",
    )
