"""Settings of the agent: command line, EDGEFLEET_AGENT_* variables, TOML file.

Precedence: the command line, then the variables, then the file, then the defaults. The file is that
of ``--config`` or its variable, else CONFIG if it exists.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.ids import check_name
from edgefleet.base.limits import LABEL_VALUE_CHARS, LABELS_PER_DEVICE
from edgefleet.base.texts import counted
from edgefleet.protocol.fallback import BUDGET, TIMEOUT_S, WHEN, read_fallback
from edgefleet.serving.bounds import BOUNDS, Bounds, read_bounds

PREFIX: Final = "EDGEFLEET_AGENT_"
CONFIG: Final = Path("/etc/edgefleet/agent.toml")
SERVE: Final = "serve-"  # the prefix of the bounds of serving
CREDENTIAL: Final = "edgefleet-claim"
"""The systemd credential with the claim: ``LoadCredential=edgefleet-claim:FILE``."""
_TEXT: Final = "utf-8-sig"  # a file may begin with a byte order mark


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All settings of the agent. ``docs/reference`` is made from them.

    The address of the hub and the file of the claim are not checked here: a device that has a
    release serves it without them.
    """

    hub: str
    name: str
    profile: str
    data_dir: Path
    trust: Path
    serve: str
    serve_grpc: str = ""
    cors_origin: str = ""  # origins, separated by commas
    fallback: str = ""  # these are texts as ``protocol.fallback`` reads them
    fallback_when: str = WHEN
    fallback_budget: str = BUDGET
    fallback_timeout_s: str = TIMEOUT_S
    fallback_ca_file: str = ""
    fallback_token_file: str = ""
    claim: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    bytes_per_s: int | None = None
    models_memory_mib: int = 0
    serve_threads: int = 0
    serve_bounds: Bounds = field(default_factory=Bounds)
    sysfs: Path = Path("/sys")
    keep_serving: bool = False
    json_log: bool = False
    claim_fault: OperatorError | None = None  # why the file of the claim cannot be used


@dataclass(frozen=True, slots=True)
class Call:
    """One command: ``run`` and ``config`` have settings, ``status`` and ``health`` need none."""

    verb: str
    data_dir: Path
    settings: AgentSettings | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class _Option:
    name: str  # with dashes, as on the command line
    text: str
    metavar: str = ""
    default: str | None = None
    flag: bool = False


OPTIONS: Final = (
    _Option("hub", "address of the hub", "URL"),
    _Option("name", "name of this device", "NAME"),
    _Option("profile", "hardware class of this device, such as jetson_nano", "PROFILE"),
    _Option("trust", "file with the trusted publisher keys, one per line", "FILE"),
    _Option(
        "claim-file",
        "file with the one-use enrolment claim; needed at the first start only, and may be absent "
        f"later (default: the systemd credential {CREDENTIAL})",
        "FILE",
        "",
    ),
    _Option("claim", "the claim itself; every user of the device can see it", "CLAIM", ""),
    _Option("data-dir", "folder for the agent's files", "FOLDER", "edgefleet-agent"),
    _Option("serve", "address of inference", "HOST:PORT", "127.0.0.1:8600"),
    _Option(
        "serve-grpc", "address of inference over gRPC; without it there is none", "HOST:PORT", ""
    ),
    _Option(
        "cors-origin",
        "origins of pages that may ask for inference, separated by commas; * is any",
        "ORIGIN",
        "",
    ),
    _Option(
        "fallback",
        "endpoint to which inference requests may be forwarded; without it nothing leaves the "
        "device",
        "URL",
        "",
    ),
    _Option(
        "fallback-when",
        "events after which a request is forwarded: overload, missing, error, confidence=LIMIT, "
        "hedge=p95, hedge=p99 or hedge=50ms",
        "EVENTS",
        WHEN,
    ),
    _Option("fallback-budget", "limits of all forwarded requests together", "LIMITS", BUDGET),
    _Option(
        "fallback-timeout-s",
        "longest time of a forwarded request, in seconds",
        "SECONDS",
        TIMEOUT_S,
    ),
    _Option(
        "fallback-ca-file",
        "file with the CA certificates of the fallback (default: those of the system)",
        "FILE",
        "",
    ),
    _Option("fallback-token-file", "file with the bearer token for the fallback", "FILE", ""),
    _Option("bytes-per-s", "limit of the download rate; 0 is unlimited", "N", "0"),
    _Option("models-memory-mib", "memory for all models together; 0 is unlimited", "MIB", "0"),
    _Option(
        "serve-threads",
        "threads of one inference; 0 is the whole CPUs in the quota of the cgroup, at least 1",
        "N",
        "0",
    ),
    *(_Option(f"{SERVE}{one.name}", one.text, one.metavar, str(one.default)) for one in BOUNDS),
    _Option("sysfs", "folder with the sensors of the board", "FOLDER", "/sys"),
    _Option("keep-serving", "keep the serving process running when the agent stops", flag=True),
    _Option("json-log", "write the log as JSON, one object per line", flag=True),
)


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """The settings of ``run``. Raises OperatorError ``setting_invalid``, or SystemExit."""
    settings = parse_call(argv, environ).settings
    assert settings is not None, argv  # noqa: S101 - a defect, not input
    return settings


def parse_call(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Call:
    """Read a command. Raises OperatorError ``setting_invalid``, or SystemExit on bad usage."""
    given = vars(parser().parse_args(argv))
    file = given["config"] or environ.get(f"{PREFIX}CONFIG")
    table: dict[str, object] = {}
    if file or CONFIG.is_file():
        table = _table(Path(file) if file else CONFIG)
    _check_keys(table)
    verb: str = given["verb"]
    if verb in ("run", "config"):
        settings = _settings(given, environ, table)
        return Call(verb, settings.data_dir, settings)
    default = next(one.default for one in OPTIONS if one.name == "data-dir")
    found = given["data_dir"] or environ.get(f"{PREFIX}DATA_DIR") or table.get("data_dir", default)
    return Call(verb, Path(_text(found, "data_dir")), as_json=given["as_json"])


def _settings(
    given: Mapping[str, Any], environ: Mapping[str, str], table: Mapping[str, object]
) -> AgentSettings:
    values: dict[str, str] = {}
    for option in OPTIONS:
        key = option.name.replace("-", "_")
        found = given[key]
        if found is None:
            found = environ.get(PREFIX + key.upper())
        if found is None and key in table:
            found = _text(table[key], key)
        if found is None:
            found = option.default
        if found is None and not option.flag:
            raise OperatorError(
                "setting_invalid",
                f"The setting {option.name} is missing.",
                field=key,
                hint=f"Give --{option.name}, {PREFIX}{key.upper()} or {key} in the file.",
            )
        values[key] = found or ""
    claim, claim_fault = values["claim"], None
    if not claim:
        claim, claim_fault = _claim_in(values["claim_file"], environ)
    return AgentSettings(
        hub=values["hub"],
        name=check_name(values["name"], field="name"),
        profile=check_name(values["profile"], field="profile"),
        data_dir=Path(values["data_dir"]),
        trust=Path(values["trust"]),
        serve=_address(values["serve"], "serve"),
        serve_grpc=_address(values["serve_grpc"], "serve_grpc") if values["serve_grpc"] else "",
        cors_origin=_origins(values["cors_origin"]),
        **_fallback(values),
        claim=claim,
        claim_fault=claim_fault,
        labels=_labels(given["label"], environ, table),
        bytes_per_s=_count(values["bytes_per_s"], "bytes_per_s") or None,
        models_memory_mib=_count(values["models_memory_mib"], "models_memory_mib"),
        serve_threads=_count(values["serve_threads"], "serve_threads"),
        serve_bounds=read_bounds(
            {one.key: values[f"serve_{one.key}"] for one in BOUNDS}, prefix="serve_"
        ),
        sysfs=Path(values["sysfs"]),
        keep_serving=_yes(values["keep_serving"], "keep_serving"),
        json_log=_yes(values["json_log"], "json_log"),
    )


def parser() -> argparse.ArgumentParser:
    """The verbs and options of the command line."""
    made = argparse.ArgumentParser(
        prog="edgefleet agent",
        description="The device agent: fetches, verifies, proves, tries and confirms releases.",
        epilog=f"Each option is also read from {PREFIX}<OPTION> and from the TOML file.",
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (("run", RUN), ("config", SHOW_CONFIG)):
        added = verbs.add_parser(verb, help=text, description=text, epilog=made.epilog)
        added.add_argument("--config", metavar="FILE", help=_CONFIG_TEXT)
        added.add_argument(
            "--label", metavar="KEY=VALUE", action="append", help="a label; may be repeated"
        )
        for option in OPTIONS:
            _add(added, option)
    for verb, text in (("status", STATUS), ("health", HEALTH)):
        added = verbs.add_parser(verb, help=text, description=text, epilog=made.epilog)
        added.add_argument("--config", metavar="FILE", help=_CONFIG_TEXT)
        _add(added, next(one for one in OPTIONS if one.name == "data-dir"))
        added.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    return made


RUN: Final = "run the agent until SIGTERM or SIGINT"
SHOW_CONFIG: Final = "print these options as a TOML file, without the claim"
STATUS: Final = "show what the agent of this device does now"
HEALTH: Final = "exit with 0 if agent and serving are healthy, with 1 otherwise"
_CONFIG_TEXT: Final = f"TOML file with these options (default: {CONFIG}, if it exists)"


def _add(parser: argparse.ArgumentParser, option: _Option) -> None:
    text = f"{option.text} (default: {option.default})" if option.default else option.text
    text = text.replace("%", "%%")  # argparse formats it
    if option.flag:
        parser.add_argument(
            f"--{option.name}", action="store_const", const="true", default=None, help=text
        )
    else:
        parser.add_argument(f"--{option.name}", metavar=option.metavar, help=text)


def serving_fallback(settings: AgentSettings) -> list[str]:
    """The options of the serving process for the fallback. Empty without one."""
    if not settings.fallback:
        return []
    keys = (option.name for option in OPTIONS if option.name.startswith("fallback"))
    values = {key: getattr(settings, key.replace("-", "_")) for key in keys}
    return [f"--{key}={value}" for key, value in values.items()]


def as_toml(settings: AgentSettings) -> str:
    """The settings as a TOML file. The claim is left out: it is used once, and secret."""
    lines: list[str] = []
    bounds = {f"serve_{one.key}": settings.serve_bounds.value(one) for one in BOUNDS}
    for option in OPTIONS:
        key = option.name.replace("-", "_")
        if option.name in ("claim", "claim-file"):
            continue
        value = bounds[key] if key in bounds else getattr(settings, key)
        if value is not None:
            lines.append(f"{key} = {_toml(value)}")
    if settings.labels:
        lines.append("\n[labels]")
        lines += [f"{_toml(key)} = {_toml(value)}" for key, value in settings.labels]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A TOML value. JSON strings are TOML strings, but for surrogates and the character 127."""
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _claim_in(file: str, environ: Mapping[str, str]) -> tuple[str, OperatorError | None]:
    """The claim in the file, or in the systemd credential. Empty if there is none.

    A device that has enrolled needs none: the file may be gone, and its fault is returned.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if not file and not folder:
        return "", None
    path = Path(file) if file else Path(folder) / CREDENTIAL
    try:
        words = path.read_text(encoding=_TEXT).split()
    except FileNotFoundError:
        return "", None
    except (OSError, ValueError) as error:  # ValueError: no text, or no path
        text = f"{path} cannot be read ({error})."
        return "", OperatorError("setting_invalid", text, field="claim_file")
    if len(words) > 1:
        text = f"{path} has {len(words)} words. A claim file has one claim."
        return "", OperatorError("setting_invalid", text, field="claim_file")
    return "".join(words), None


def _table(file: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - needed with a file only

    try:
        read = tomllib.loads(file.read_text(encoding=_TEXT))
    except (OSError, ValueError) as error:  # ValueError: no TOML, no text, or no path
        raise OperatorError(
            "setting_invalid", f"{file} cannot be read ({error}).", field="config"
        ) from error
    table = read.get("agent", read)
    if not isinstance(table, dict):
        raise OperatorError("setting_invalid", f"agent in {file} is not a table.", field="agent")
    return {key.replace("-", "_"): value for key, value in table.items()}


def _check_keys(table: Mapping[str, object]) -> None:
    known = {option.name.replace("-", "_") for option in OPTIONS} | {"labels"}
    for key in table:
        if key not in known:
            raise OperatorError("setting_invalid", f"Unknown option {key!r}.", field=key)


def _text(value: object, key: str) -> str:
    if isinstance(value, dict | list):
        raise OperatorError("setting_invalid", f"{value!r} is not one value.", field=key)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _labels(
    given: Sequence[str] | None, environ: Mapping[str, str], table: Mapping[str, object]
) -> tuple[tuple[str, str], ...]:
    """Labels from the first source that has any. The variable has the form ``k=v,k=v``."""
    pairs: Sequence[str]
    if given:
        pairs = given
    elif variable := environ.get(f"{PREFIX}LABELS"):
        pairs = variable.split(",")
    else:
        labels = table.get("labels", {})
        if not isinstance(labels, dict):
            raise OperatorError("setting_invalid", "labels is not a table.", field="labels")
        pairs = [f"{key}={_text(value, 'labels')}" for key, value in labels.items()]
    found: dict[str, str] = {}
    for pair in pairs:
        # A byte that is not UTF-8 becomes a question mark, which the hub refuses in a label.
        key, equals, value = pair.encode(errors="replace").decode().strip().partition("=")
        if not equals or not key or len(value) > LABEL_VALUE_CHARS:
            raise OperatorError(
                "setting_invalid",
                f"{pair!r} is not KEY=VALUE with at most {LABEL_VALUE_CHARS} characters.",
                field="label",
            )
        found[key] = value
    if len(found) > LABELS_PER_DEVICE:
        raise OperatorError(
            "setting_invalid",
            f"{counted(len(found), 'label')}; {LABELS_PER_DEVICE} are allowed.",
            field="label",
        )
    return tuple(sorted(found.items()))


def _address(text: str, field: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise OperatorError(
            "setting_invalid", f"{text!r} is not an address.", field=field, hint="Give HOST:PORT."
        )
    return text


def _fallback(values: Mapping[str, str]) -> dict[str, str]:
    """The settings of the fallback, checked. Raises OperatorError ``setting_invalid``."""
    names = ("when", "budget", "timeout_s", "ca_file", "token_file")
    read_fallback(values["fallback"], **{name: values[f"fallback_{name}"] for name in names})
    keys = ("fallback", *(f"fallback_{name}" for name in names))
    return {key: values[key] for key in keys}


def _origins(text: str) -> str:
    origins = tuple(one.strip() for one in text.split(",") if one.strip())
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not host or "/" in host):
            raise OperatorError(
                "setting_invalid",
                f"{origin!r} is not an origin.",
                field="cors_origin",
                hint="Give * or a scheme and a host, such as https://page.example, without a path.",
            )
    return ",".join(origins)


def _count(text: str, field: str) -> int:
    if not text.isdecimal():
        raise OperatorError("setting_invalid", f"{text!r} is not a whole number.", field=field)
    return int(text)


def _yes(text: str, field: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes":
            return True
        case "" | "false" | "0" | "no":
            return False
        case _:
            raise OperatorError("setting_invalid", f"{text!r} is not true or false.", field=field)
