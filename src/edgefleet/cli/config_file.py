"""The TOML file: shared settings at the top level, one table per verb.

    hub = "http://hub.example:8400"
    [rollout.plan]
    waves = [1, 10, 100]
    soak = "10m"

The first of ``--config``, ``$EDGEFLEET_CONFIG``, ``./edgefleet.toml`` and
``~/.config/edgefleet/config.toml`` is read, and no other. An unknown key is an error.
"""

import os
import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.tree import ROOT, Leaf, leaf_at

MAX_FILE_BYTES: Final = 1 << 20
_READ_BY_THE_AGENT: Final = "agent"  # the agent checks that table itself


SHARED: Final = frozenset({"json", "config", "hub", "token", "data_dir"})
"""Options at the top level of a TOML file. They apply to every verb that has them."""


def is_shared(param: click.Parameter) -> bool:
    """True if ``param`` is a shared option, and not a verb's own option of the same name."""
    name = param.name or ""
    return name in SHARED and param.envvar == f"EDGEFLEET_{name.upper()}"


def apply_config(ctx: click.Context, given: Path | None, path: tuple[str, ...]) -> None:
    """Use the file's values as defaults: command line and variables take precedence.

    Raises OperatorError ``setting_invalid`` if the file cannot be read or has an unknown key.
    """
    file = given or _found()
    if file is None:
        return
    values = _read(file)
    check_keys(values, file)
    own: Any = values
    for name in path:
        own = own.get(name, {})
    accepted = {param.name for param in ctx.command.params if is_shared(param)}
    defaults = {key: value for key, value in values.items() if key in accepted}
    ctx.default_map = {**defaults, **own}


def check_keys(values: Mapping[str, Any], file: Path) -> None:
    """Raise OperatorError ``setting_invalid`` for the first unknown key."""
    for key, value in values.items():
        if key in SHARED or key == _READ_BY_THE_AGENT:
            continue
        child = ROOT.get(key)
        if child is None or not isinstance(value, dict):
            raise _unknown(file, (key,), {*SHARED, *ROOT})
        if isinstance(child, Leaf):
            _check_verb(value, file, (key,))
            continue
        for verb, settings in value.items():
            if verb not in child.verbs or not isinstance(settings, dict):
                raise _unknown(file, (key, verb), child.verbs)
            _check_verb(settings, file, (key, verb))


def load(leaf: Leaf) -> click.Command:
    """The command of a leaf, imported now."""
    module, _, attribute = leaf.target.partition(":")
    _import_msgspec()
    command = getattr(import_module(module), attribute)
    if not isinstance(command, click.Command):
        msg = f"{leaf.target} is not a command"
        raise TypeError(msg)
    return command


def _import_msgspec() -> None:
    """Import msgspec without typing_extensions, which takes 20 ms of CPU.

    msgspec asks it for names that ``typing`` has since Python 3.9. It can be imported afterwards.
    """
    name = "typing_extensions"
    if name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        try:
            import_module("msgspec")
        finally:
            del sys.modules[name]


def _check_verb(values: Mapping[str, Any], file: Path, path: tuple[str, ...]) -> None:
    leaf = leaf_at(path)
    known = {param.name or "" for param in load(leaf).params} if leaf else set[str]()
    for key in values:
        if key not in known:
            raise _unknown(file, (*path, key), known)


def _found() -> Path | None:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for path in (Path("edgefleet.toml"), home / "edgefleet" / "config.toml"):
        if path.is_file():
            return path
    return None


def _read(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        data = file.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise OperatorError(
                "setting_invalid",
                f"{file} has {len(data):,} bytes; at most {MAX_FILE_BYTES:,} are allowed.",
                field="config",
            )
        return {key: _underscored(value) for key, value in _toml(data).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(
            "setting_invalid",
            f"{file} cannot be read: {error}.",
            field="config",
            hint="Name a TOML file with --config or EDGEFLEET_CONFIG.",
        ) from error


def _toml(data: bytes) -> dict[str, Any]:
    import tomllib

    return {key.replace("-", "_"): value for key, value in tomllib.loads(data.decode()).items()}


def _underscored(value: Any) -> Any:
    """Keys with underscores, so that a file may also contain ``max-error-rate``."""
    if not isinstance(value, dict):
        return value
    return {str(key).replace("-", "_"): _underscored(item) for key, item in value.items()}


def _unknown(file: Path, path: tuple[str, ...], known: Collection[str]) -> OperatorError:
    import difflib

    near = difflib.get_close_matches(path[-1], known, n=1)
    return OperatorError(
        "setting_invalid",
        f"{file} sets {'.'.join(path)}, which is not a setting.",
        field=".".join(path),
        hint=f"Did you mean {near[0]}?" if near else f"Settings there: {', '.join(sorted(known))}.",
    )
