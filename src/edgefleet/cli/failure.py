"""Prints a failure: what happened, the field, the hint, and the next command."""

import sys
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click
from click.core import ParameterSource

from edgefleet.base.errors import (
    CATALOG,
    DeviceError,
    EdgefleetError,
    InternalError,
    OperatorError,
    Party,
)
from edgefleet.cli.exits import Exit, exit_of
from edgefleet.cli.invocation import Invocation
from edgefleet.cli.screen import clean
from edgefleet.cli.values import WrongValue
from edgefleet.protocol.wire import encode, problem

NEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "address_in_use": "{verb} --listen 127.0.0.1:0",
        "answer_malformed": "edgefleet doctor",
        "connection_lost": "edgefleet doctor",
        "data_dir_in_use": "edgefleet doctor",
        "fleet_empty": "edgefleet device list",
        "golden_failed": "edgefleet model publish --help",
        "approves_own_plan": "edgefleet rollout why",
        "forbidden": "edgefleet token list",
        "too_many_logins": "edgefleet hub login",
        "unauthenticated": "edgefleet doctor",
        "user_exists": "edgefleet user list",
        "release_exists": "edgefleet model list",
        "release_failed_before": "edgefleet rollout list",
        "rollout_overlap": "edgefleet rollout list",
        "runtime_missing": "pip install 'edgefleet[all]'",
        "selector_invalid": "edgefleet device list --help",
        "selector_key_unknown": "edgefleet device list",
        "memory_full": "edgefleet device list",
        "signature_invalid": "edgefleet model publish --help",
        "timeout": "edgefleet doctor",
        "unreachable": "edgefleet doctor",
        "variant_missing": "edgefleet device list",
        "verb_not_now": "edgefleet rollout why",
    }
)
"""The next command by error code. For other codes: the help of the verb that failed."""

_LISTED: Final[Mapping[str, str]] = MappingProxyType(
    {"device": "device", "model": "model", "release": "model", "rollout": "rollout"}
)
"""The noun whose list shows the names of that kind."""

_INFERENCE: Final = ("edgefleet infer", "edgefleet bench")
"""The verbs that ask a device, not a hub."""


def report(error: Exception, invocation: Invocation) -> Exit:
    """Print the error as text or as a Problem object. Returns the exit code."""
    path = invocation.path
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
    known = _typed(error)
    code = exit_of(known)
    if code is Exit.OURS and known is not error:
        traceback.print_exception(error, file=sys.stderr)
    if invocation.json:
        click.echo(encode(problem(known)).decode())
        return code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return code
    click.echo(f"edgefleet: {clean(known.message)}", err=True)
    if known.field:
        click.echo(f"  field: {clean(known.field)}", err=True)
    following = _next(known, path)
    if not _repeats(known.hint, known, following):
        click.echo(f"  hint:  {clean(known.hint)}", err=True)
    click.echo(f"  next:  {following}", err=True)
    click.echo(f"  code:  {known.code} (exit {int(code)})", err=True)
    return code


def _repeats(hint: str, error: EdgefleetError, following: str) -> bool:
    """True if ``hint`` says no more than the message, or than the command that follows."""
    is_general = error.code == "setting_invalid" and hint == CATALOG[error.code].hint
    told = error.message.lower().rstrip(".")
    return is_general or hint.lower().rstrip(".") in told or f"`{following}`" in hint


def _next(error: EdgefleetError, path: str) -> str:
    if error.party is Party.NETWORK and path in _INFERENCE:
        return "edgefleet agent status"
    missing = error.field.lower() if error.field else "".join(path.split()[1:2])
    if error.code == "not_found" and missing in _LISTED and path not in _INFERENCE:
        return f"edgefleet {_LISTED[missing]} list"
    return NEXT.get(error.code, "{verb} --help").format(verb=path)


def _typed(error: Exception) -> EdgefleetError:
    match error:
        case EdgefleetError():
            return error
        case click.ClickException():
            return _usage(error)
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] != "edgefleet":
            return DeviceError(
                "runtime_missing",
                f"This verb needs the package {name}, which is not installed.",
                hint="Install all packages: pip install 'edgefleet[all]'",
            )
        case OSError(filename=str(name)):
            return OperatorError(
                "setting_invalid",
                f"{name}: {error.strerror}.",
                field="file",
                hint="Check that the file exists and that you may read or write it.",
            )
        case _:
            return InternalError("internal", f"{type(error).__name__}: {error}")


def _usage(error: click.ClickException) -> OperatorError:
    """Click's error, with the source of the value: variable or file."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return OperatorError("setting_invalid", f"{error.ctx.command_path} needs a verb.")
    message = error.format_message()
    if not (isinstance(error, click.BadParameter) and error.param and error.ctx):
        field = getattr(error, "option_name", None)
        return OperatorError("setting_invalid", message, field=field)
    param, ctx = error.param, error.ctx
    field = param.opts[0] if isinstance(param, click.Option) else param.make_metavar(ctx)
    match ctx.get_parameter_source(param.name or ""):
        case ParameterSource.ENVIRONMENT:
            message += " It came from an EDGEFLEET_ variable."
        case ParameterSource.DEFAULT_MAP:
            message += " It came from the TOML file."
        case _:
            pass
    return OperatorError("setting_invalid", message, field=field, hint=_fix(error, field))


def _fix(error: click.BadParameter, field: str) -> str:
    """The next step for a wrong value. Empty if the message has it already."""
    return f"Fix `{field}`: use {error.example}." if isinstance(error, WrongValue) else ""
