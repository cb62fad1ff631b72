"""Every noun and verb: its module, loaded on use, and its line in the help."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Leaf:
    """A verb: ``module:attribute`` of its command, and its line in the help of its noun."""

    target: str
    line: str


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun and its verbs."""

    line: str
    verbs: Mapping[str, Leaf]


def _noun(line: str, module: str, **verbs: str) -> Noun:
    """``verbs`` are lines by name; ``module`` may contain ``{verb}``."""
    leaves = {
        name: Leaf(f"edgefleet.cli.{module.format(verb=name)}:{name}", text)
        for name, text in verbs.items()
    }
    return Noun(line, MappingProxyType(leaves))


def _rollout() -> Noun:
    command = "edgefleet.cli.rollout."
    verbs = {
        "plan": Leaf(f"{command}plan:plan", "Plan a rollout in waves."),
        "start": Leaf(f"{command}verbs:start", "Start a planned rollout."),
        "watch": Leaf(f"{command}watch:watch", "Follow a rollout to its end."),
        "why": Leaf(f"{command}show:why", "Explain what a rollout waits for."),
        "pause": Leaf(f"{command}verbs:pause", "Start no more devices until it is resumed."),
        "resume": Leaf(f"{command}verbs:resume", "Resume a paused or halted rollout."),
        "advance": Leaf(
            f"{command}verbs:advance", "Open the next wave without waiting for the gate."
        ),
        "halt": Leaf(f"{command}verbs:halt", "Stop a rollout; devices keep the release."),
        "revert": Leaf(f"{command}verbs:revert", "Roll back every device that runs the release."),
        "approve": Leaf(f"{command}verbs:approve", "Approve a rollout, or its open wave."),
        "list": Leaf(f"{command}show:list_", "List the newest rollouts."),
        "show": Leaf(f"{command}show:show", "Show one rollout with its waves."),
    }
    return Noun("Move a fleet from one release to another.", MappingProxyType(verbs))


def _hook() -> Noun:
    command = "edgefleet.cli.hook:"
    verbs = {
        "add": Leaf(f"{command}add", "Post events to a URL."),
        "list": Leaf(f"{command}list_", "List the web hooks and their failures."),
        "enable": Leaf(f"{command}enable", "Enable a web hook."),
        "disable": Leaf(f"{command}disable", "Disable a web hook."),
        "remove": Leaf(f"{command}remove", "Remove a web hook."),
        "dead": Leaf(f"{command}dead", "List the events that could not be delivered."),
        "replay": Leaf(f"{command}replay", "Deliver such events once more."),
    }
    return Noun("Web hooks: events for other systems.", MappingProxyType(verbs))


def _model() -> Noun:
    command = "edgefleet.cli.model."
    verbs = {
        "examples": Leaf(f"{command}examples:examples", "Copy the example releases into a folder."),
        "init": Leaf(f"{command}init:init", "Make a release folder from a model and samples."),
        "inspect": Leaf(f"{command}inspect:inspect", "Show what is in a model file or folder."),
        "compare": Leaf(f"{command}compare:compare", "Compare two model files or folders."),
        "profiles": Leaf(f"{command}profiles:profiles", "List the hardware classes."),
        "publish": Leaf(f"{command}publish:publish", "Prove, sign and upload a release."),
        "list": Leaf(f"{command}show:list_", "List models and their releases."),
        "optimize": Leaf(
            f"{command}optimize:optimize", "Find the best variant of a model for each profile."
        ),
        "field": Leaf(f"{command}field:field", "Show latency and memory in the field."),
        "show": Leaf(f"{command}show:show", "Show a model, or one of its releases."),
        "why": Leaf(f"{command}show:why", "Explain the status of a release."),
    }
    return Noun("Models and their releases.", MappingProxyType(verbs))


def _device() -> Noun:
    command = "edgefleet.cli.device:"
    verbs = {
        "list": Leaf(f"{command}list_", "List devices."),
        "show": Leaf(f"{command}show", "Show one device."),
        "why": Leaf(f"{command}why", "Explain why a device runs its release."),
        "search": Leaf(f"{command}search", "List devices by a part of their name or labels."),
        "label": Leaf("edgefleet.cli.device_verbs:label", "Set labels on a device."),
        "rename": Leaf("edgefleet.cli.device_verbs:rename", "Give a device another name."),
        "remove": Leaf("edgefleet.cli.device_verbs:remove", "Remove a device from the fleet."),
        "history": Leaf(f"{command}history", "Show what a device did with each release."),
        "claim": Leaf(f"{command}claim", "Make one-use enrolment claims."),
        "quarantined": Leaf(f"{command}quarantined", "List quarantined devices."),
        "unquarantine": Leaf(f"{command}unquarantine", "Unquarantine a device."),
        "clear-copy": Leaf(
            "edgefleet.cli.device_verbs:clear_copy",
            "Clear a copied device: the copies are stopped.",
        ),
    }
    return Noun("The devices of the fleet.", MappingProxyType(verbs))


def _user() -> Noun:
    command = "edgefleet.cli.user:"
    verbs = {
        "add": Leaf(f"{command}add", "Add a user."),
        "list": Leaf(f"{command}list_", "List the users."),
        "role": Leaf(f"{command}role", "Change the role of a user."),
        "passwd": Leaf(f"{command}passwd", "Set the password of a user."),
        "disable": Leaf(f"{command}disable", "Disable a user: tokens and sessions end at once."),
        "enable": Leaf(f"{command}enable", "Enable a disabled user."),
    }
    return Noun("The users of the hub.", MappingProxyType(verbs))


def _token() -> Noun:
    command = "edgefleet.cli.token:"
    verbs = {
        "create": Leaf(f"{command}create", "Create a token; it is shown once."),
        "list": Leaf(f"{command}list_", "List the tokens, without their secrets."),
        "revoke": Leaf(f"{command}revoke", "Revoke a token at once."),
    }
    return Noun("API tokens of users.", MappingProxyType(verbs))


def _sim() -> Noun:
    command = "edgefleet.cli.sim.verbs:"
    verbs = {
        "run": Leaf(f"{command}run", "Simulate one rollout on a virtual fleet."),
        "swarm": Leaf(f"{command}swarm", "Simulate many random mixtures of faults."),
        "replay": Leaf(f"{command}replay", "Run one seed of a swarm again."),
        "list": Leaf(f"{command}list_", "List the scenarios."),
    }
    return Noun("Simulated fleets, on the real engine and agent.", MappingProxyType(verbs))


ROOT: Final[Mapping[str, Leaf | Noun]] = MappingProxyType(
    {
        "demo": Leaf(
            "edgefleet.cli.demo.command:demo",
            "Show canary rollouts and automatic rollback on this machine.",
        ),
        "serve": Leaf("edgefleet.cli.serve:serve", "Run the hub and its page."),
        "agent": _noun(
            "The program that runs on a device.",
            "agent",
            run="Run the agent on a device.",
            status="Show what the agent of this device does now.",
            health="Check agent and serving of this device.",
            config="Print the options of the agent as a TOML file.",
        ),
        "fleet": _noun(
            "The fleet as a whole.",
            "fleet",
            show="Show the fleet now.",
            freeze="Freeze the fleet: no device starts a release.",
            thaw="Thaw the fleet.",
        ),
        "device": _device(),
        "hub": Noun(
            "The hub itself.",
            MappingProxyType(
                {
                    "login": Leaf(
                        "edgefleet.cli.hub:login", "Print a link that opens the page, for one use."
                    ),
                    "accept-restored": Leaf(
                        "edgefleet.cli.hub:accept_restored",
                        "Accept the state of a hub restored from an older copy.",
                    ),
                    "backup": Leaf(
                        "edgefleet.cli.hub:backup", "Back up the data folder, also while it runs."
                    ),
                    "restore": Leaf(
                        "edgefleet.cli.hub:restore", "Restore a backup into the data folder."
                    ),
                    "gc": Leaf(
                        "edgefleet.cli.hub:gc", "Remove the artifacts that no release needs."
                    ),
                    "verify": Leaf(
                        "edgefleet.cli.hub:verify", "Verify a backup or the data folder."
                    ),
                }
            ),
        ),
        "user": _user(),
        "token": _token(),
        "key": _noun(
            "The key that signs releases.",
            "key",
            new="Make a publisher's key.",
            show="Show a publisher's public key.",
        ),
        "model": _model(),
        "rollout": _rollout(),
        "truth": _noun(
            "Late labels for answers.", "truth", add="Add labels for the answers of a device."
        ),
        "infer": Leaf("edgefleet.cli.infer.infer:infer", "Ask a model on a device for one answer."),
        "bench": Leaf(
            "edgefleet.cli.infer.bench:bench", "Measure a model on a device: latency, throughput."
        ),
        "sim": _sim(),
        "hook": _hook(),
        "events": Leaf("edgefleet.cli.events:events", "List what happened, or follow it."),
        "audit": Leaf("edgefleet.cli.audit:audit", "List the audit log."),
        "doctor": Leaf("edgefleet.cli.doctor.command:doctor", "Check this machine and the hub."),
    }
)


def leaf_at(path: tuple[str, ...]) -> Leaf | None:
    """The verb at ``path``, such as ``("rollout", "plan")``."""
    match path:
        case (name,):
            found = ROOT.get(name)
            return found if isinstance(found, Leaf) else None
        case (name, verb):
            noun = ROOT.get(name)
            return noun.verbs.get(verb) if isinstance(noun, Noun) else None
        case _:
            return None


def leaves() -> tuple[tuple[tuple[str, ...], Leaf], ...]:
    """Every verb with its path, in the order of the table."""
    found: list[tuple[tuple[str, ...], Leaf]] = []
    for name, child in ROOT.items():
        match child:
            case Leaf():
                found.append(((name,), child))
            case Noun():
                found += [((name, verb), leaf) for verb, leaf in child.verbs.items()]
    return tuple(found)
