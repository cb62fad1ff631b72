"""Addresses of MLflow models: ``models:/`` and ``runs:/``."""

import re
from dataclasses import dataclass
from typing import Final

from edgefleet.base.errors import PublisherError

_ADDRESS: Final = re.compile(r"(models|runs):/+(.*)")
_LOGGED: Final = re.compile(r"m-[0-9a-f]{32}")
_RUN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """``models:/name/version`` or ``models:/name@alias``. One of the two is empty."""

    name: str
    version: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """``models:/m-...``: a model of MLflow 3 that need not be registered."""

    model_id: str


@dataclass(frozen=True, slots=True)
class RunModel:
    """``runs:/run_id/path``."""

    run_id: str
    path: str


def is_mlflow_address(text: str) -> bool:
    """Whether ``text`` is an address of MLflow, and not a path."""
    return _ADDRESS.fullmatch(text) is not None


def parsed(text: str) -> RegisteredModel | LoggedModel | RunModel:
    """Raises PublisherError ``not_a_model`` for an address that names no model."""
    found = _ADDRESS.fullmatch(text)
    kind, rest = found.groups() if found else ("", "")
    first, slash, second = rest.partition("/")
    if kind == "runs" and _RUN.fullmatch(first) and _is_path(second):
        return RunModel(first, second)
    if kind == "models" and not slash:
        name, at, alias = rest.partition("@")
        if name and alias:
            return RegisteredModel(name, alias=alias)
        if not at and _LOGGED.fullmatch(name):
            return LoggedModel(name)
    if kind == "models" and first and second.isdecimal():
        return RegisteredModel(first, version=second)
    raise PublisherError(
        "not_a_model",
        f"{text!r} is no address of an MLflow model.",
        field="model",
        hint="Write models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID or runs:/RUN_ID/PATH. "
        "Stages are not read: MLflow replaced them by aliases.",
    )


def _is_path(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/")) if path else False
