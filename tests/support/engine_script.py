"""Sessions with the engine as text: commands and their answers.

A script is blocks of a command, a divider and the answer, with an empty line between. Time is
virtual, the devices are those of ``edgefleet.testing``, and a plan is written with the options of
``edgefleet rollout plan``, so that what a script shows is what an operator would see.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace

import click
from msgspec import structs

from edgefleet.base.errors import OperatorError
from edgefleet.cli.rollout.options import knob_options, spec_of
from edgefleet.cli.rollout.render import WARNINGS, rollout_lines
from edgefleet.cli.values import DURATION, duration
from edgefleet.cli.wait_report import wait_lines
from edgefleet.protocol.comparisons import Elementwise
from edgefleet.protocol.device import CheckIn, ModelReport, OutcomeKind
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.rollout import RolloutSpec, Verb
from edgefleet.protocol.today import today_rows
from edgefleet.protocol.version import ONE_MODEL, PROTOCOL
from edgefleet.testing import Behaviour, FakeDevice, FakeFleet, Fate
from edgefleet.testing.release import fake_manifest

DIVIDER = "----"
CHANGES = ("input", "datatype", "classes", "task", "onnxruntime")
SHORT = {"bake_s": 0}
"""A plan of a session ends with its last wave, unless the session names ``--bake``."""


def play(script: str) -> str:
    """The script with the current answers of its commands. Comments are kept."""
    session = Session()
    blocks = []
    for block in script.strip().split("\n\n"):
        comments = [line for line in block.splitlines() if line.startswith("#")]
        rest = [line for line in block.splitlines() if not line.startswith("#")]
        if not rest:
            blocks.append("\n".join(comments))
            continue
        command = rest[0]
        answer = session.say(command)
        blocks.append("\n".join([*comments, command, DIVIDER, *(answer or ["ok"])]))
    return "\n\n".join(blocks) + "\n"


def commands(script: str) -> list[str]:
    """Every command of a script."""
    blocks = script.strip().split("\n\n")
    lines = [[line for line in block.splitlines() if not line.startswith("#")] for block in blocks]
    return [block[0] for block in lines if block]


def changed_manifest(manifest: ReleaseManifest, made: Mapping[str, str]) -> ReleaseManifest:
    """The manifest with another input, number of classes, task or needed runtime."""
    variants = []
    for variant in manifest.variants:
        (x,), (y,) = variant.inputs, variant.outputs
        classes = int(made.get("classes", y.shape[1]))
        variants.append(
            structs.replace(
                variant,
                inputs=(
                    structs.replace(
                        x,
                        name=made.get("input", x.name),
                        datatype=made.get("datatype", x.datatype),  # type: ignore[arg-type] # one
                    ),
                ),
                outputs=(structs.replace(y, shape=(-1, classes)),),
                min_runtime=made.get("onnxruntime", ""),
            )
        )
    manifest = structs.replace(manifest, variants=tuple(variants))
    if "task" not in made:
        return manifest
    compared = Elementwise(outputs=("y",), absolute=0.1, relative=0.0)
    golden = structs.replace(manifest.golden, comparison=compared)
    return structs.replace(manifest, task=made["task"], golden=golden, quality=None)


class Session:
    """One fleet and the commands on it. An error is an answer like any other."""

    def __init__(self) -> None:
        self.fleet = FakeFleet()
        self.began = self.fleet.now
        self._verbs: Mapping[str, Callable[[list[str]], list[str]]] = {
            "looks": self._looks,
            "fleet": self._fleet,
            "device": self._device,
            "devices": self._devices,
            "release": self._release,
            "installed": self._installed,
            "beside": self._beside,
            "plan": self._plan,
            "report": self._report,
            "tick": self._tick,
            "run": self._run,
            "why": self._why,
            "view": self._view,
            "restart": self._restart,
            "approve": self._approve,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "quarantined": self._quarantined,
            "unquarantine": self._unquarantine,
            "clone": self._clone,
            "clear_copy": self._clear_copy,
            "label": self._label,
            "rename": self._rename,
            "remove": self._remove,
            **{verb.value: self._command(verb) for verb in Verb},
        }

    def say(self, line: str) -> list[str]:
        name, *rest = shlex.split(line)
        try:
            return self._verbs[name](rest)
        except OperatorError as error:
            field = f" at {error.field}" if error.field else ""
            return [f"refused: {error.code}{field}: {error.message}"]

    # The world.

    def _looks(self, said: list[str]) -> list[str]:
        """``looks 10s``: how often gates are evaluated. Only before the first device."""
        self.fleet = FakeFleet(tick_s=DURATION.convert(said[0], None, None))
        return []

    def _fleet(self, said: list[str]) -> list[str]:
        """``fleet 100 site=lyon,oslo``: enrol 100 devices, with the labels' values in turn."""
        count, given = int(said[0]), _pairs(said[1:])
        known = len(self.fleet.by_row)
        values = {key: text.split(",") for key, text in given.items()}
        for number in range(known, known + count):
            labels = {key: choice[number % len(choice)] for key, choice in values.items()}
            device = FakeDevice(
                f"cam-{number:04d}",
                labels.pop("profile", "generic_x86"),
                runtimes=(labels.pop("runtime", "onnx"),),
                versions=tuple(("onnx", text) for text in [labels.pop("onnxruntime", "")] if text),
                comparisons=tuple(filter(None, labels.pop("comparisons", "").split("+"))),
                datatypes=tuple(filter(None, labels.pop("datatypes", "").split("+"))),
                memory_mib=int(labels.pop("memory", "1024")),
                models_memory_mib=int(labels.pop("models_memory", "0")),
                protocol=int(labels.pop("protocol", ONE_MODEL)),
            )
            device.labels = labels
            self.fleet.enrol(device)
        return [f"{len(self.fleet.devices)} devices"]

    def _devices(self, said: list[str]) -> list[str]:
        """``devices site=lyon offline``: change each device with this label or profile."""
        ((label, value),) = _pairs(said[:1]).items()
        for name, device in self.fleet.devices.items():
            labels = {**device.labels, "profile": device.profile}
            if labels.get(label) == value:
                self._device([name, *said[1:]])
        return []

    def _device(self, said: list[str]) -> list[str]:
        """``device cam-0001``: show a device. ``offline``, ``online`` or ``2=fails`` changes it.

        So does ``disk=disk_readonly``, and ``disk=`` when it can write again.
        """
        device = self.fleet.devices[said[0]]
        for word in said[1:]:
            if word in {"offline", "online"}:
                device.offline = word == "offline"
            elif word.startswith("disk="):
                self.fleet.report_disk_fault(said[0], word.removeprefix("disk="))
            else:
                release, _, fate = word.partition("=")
                device.fates = {**device.fates, release: Fate(fate)}
        if said[1:]:
            return []
        serves = device.running or "nothing"
        return [f"{device.name} serves {serves}", *wait_lines(self.fleet.why_device(said[0]))]

    def _release(self, said: list[str]) -> list[str]:
        """``release 2 fails=10% confidence=0.8 for=jetson_nano,raspberry_pi``.

        ``input=image``, ``datatype=BF16``, ``classes=12``, ``task=regression`` and
        ``onnxruntime=1.23`` change the manifest.
        """
        behaviour, given = Behaviour(), _pairs(said[1:])
        made = {key: given.pop(key) for key in CHANGES if key in given}
        profiles = given.pop("for").split(",") if "for" in given else None
        for key, text in given.items():
            value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
            kind = type(getattr(behaviour, key))
            behaviour = replace(behaviour, **{key: kind(value)})
        self.fleet.publish(
            said[0], behaviour, profiles=profiles, change=lambda one: changed_manifest(one, made)
        )
        return []

    def _installed(self, said: list[str]) -> list[str]:
        """``installed 1``: every device serves it already."""
        self.fleet.publish(said[0])
        self.fleet.install(said[0])
        return self._stand()

    def _beside(self, said: list[str]) -> list[str]:
        """``beside detector 1 2``: every device has release 1 of another model; 2 is published."""
        model, *releases = said
        profiles = sorted({device.profile for device in self.fleet.by_row})
        for release in releases:
            self.fleet.add_release(fake_manifest(model, release, profiles, now=self.fleet.now))
        for device in self.fleet.by_row:
            device.beside = (*device.beside, ModelReport(model=model, release=releases[0]))
        return []

    def _report(self, said: list[str]) -> list[str]:
        """``report cam-0001 trial_failed inference_errors``, about the newest rollout."""
        device, kind, *reason = said
        new = self.fleet.report(device, self._newest(), OutcomeKind(kind), *reason)
        return ["counted" if new else "it says nothing new"]

    def _tick(self, said: list[str]) -> list[str]:
        """``tick 5m``: advance time, and print the events."""
        before = len(self.fleet.audit)
        self.fleet.tick(DURATION.convert(said[0], None, None))
        return [*self._noted(before), *self._stand()]

    def _run(self, said: list[str]) -> list[str]:
        """``run``: advance time until the newest rollout has ended, at most a day."""
        before = len(self.fleet.audit)
        view = self.fleet.run(self._newest(said), at_most_s=86_400)
        return [*self._noted(before), *self._stand(), f"{view.id} is {view.status.value}"]

    # The operator.

    def _plan(self, said: list[str]) -> list[str]:
        """``plan 2 --waves 1,10,100 --soak 10m``: the options of ``edgefleet rollout plan``."""
        view = self.fleet.view(self.fleet.plan(read_plan(said, SHORT)))
        waves = ", ".join(wave.name for wave in view.waves)
        left_out = ", ".join(f"{count} {reason}" for reason, count in view.ineligible.items())
        return [
            f"{view.id} planned: {view.model} {view.release}, waves: {waves}",
            *(f"{what} {named}" for what, named in today_rows(view.model, view.release, view)),
            *([f"left out: {left_out}"] if left_out else []),
            *(f"interface: {change}" for change in view.interface),
            *([f"unjudged: {view.unjudged}"] if view.unjudged else []),
            *(f"warning: {wait.text}" for wait in view.why.waits if wait.code in WARNINGS),
        ]

    def _command(self, verb: Verb) -> Callable[[list[str]], list[str]]:
        def command(said: list[str]) -> list[str]:
            before = len(self.fleet.audit)
            self.fleet.command(self._newest(said), verb)
            return self._noted(before)

        return command

    def _approve(self, said: list[str]) -> list[str]:
        """``approve alice``: alice approves the newest rollout."""
        before = len(self.fleet.audit)
        self.fleet.approve(self._newest(), said[0])
        return self._noted(before)

    def _freeze(self, said: list[str]) -> list[str]:
        """``freeze alice``: no device may start."""
        self.fleet.freeze(person=said[0])
        return []

    def _thaw(self, said: list[str]) -> list[str]:
        """``thaw alice``: devices may start again."""
        self.fleet.freeze(frozen=False, person=said[0])
        return []

    def _quarantined(self, _: list[str]) -> list[str]:
        """``quarantined``: list the quarantined devices."""
        rows = self.fleet.engine.quarantined_rows(self.fleet.model)
        return [f"{len(rows)} quarantined", *self.fleet.engine.fleet.names(rows[:5])]

    def _unquarantine(self, said: list[str]) -> list[str]:
        """``unquarantine cam-0001``: clear a device's quarantine."""
        self.fleet.unquarantine(said[0])
        return []

    def _clone(self, said: list[str]) -> list[str]:
        """``clone cam-0001``: a second agent uses its credential; both check in until it shows."""
        row, fleet = self.fleet.row(said[0]), self.fleet.engine.fleet
        reports = fleet.models.reports(row)
        for run in (1, 2, 1, 2, 1):
            for seq in (fleet.last_seq(row), fleet.last_seq(row) + 1):
                report = CheckIn(
                    protocol=PROTOCOL, seq=max(1, seq), run=run, models=reports, full=True
                )
                self.fleet.check_in(row, report)
        self.fleet.devices[said[0]].seq = fleet.last_seq(row)
        return [f"copied: {fleet.copies.is_copied(row)}"]

    def _clear_copy(self, said: list[str]) -> list[str]:
        """``clear_copy cam-0001``: the copies of the device are stopped."""
        self.fleet.clear_copy(said[0])
        return []

    def _label(self, said: list[str]) -> list[str]:
        """``label cam-0001 site=oslo``: replace the labels of a device."""
        self.fleet.label(said[0], _pairs(said[1:]))
        return []

    def _rename(self, said: list[str]) -> list[str]:
        """``rename cam-0001 door``: give a device another name."""
        self.fleet.rename(said[0], said[1])
        return []

    def _remove(self, said: list[str]) -> list[str]:
        """``remove cam-0001``: remove a device from the fleet."""
        self.fleet.remove(said[0])
        return []

    def _why(self, said: list[str]) -> list[str]:
        """``why`` of the newest rollout; ``why ro-1`` of one, ``why cam-0001`` of a device."""
        if said and said[0] in self.fleet.devices:
            return wait_lines(self.fleet.why_device(said[0]))
        return wait_lines(self.fleet.why(self._newest(said)))

    def _view(self, said: list[str]) -> list[str]:
        lines = rollout_lines(self.fleet.view(self._newest(said)))
        return [line.rstrip() for line in lines if line]

    def _restart(self, _: list[str]) -> list[str]:
        """``restart``: kill the hub and start it again from its store."""
        self.fleet.restart()
        return self._stand()

    # Inside.

    def _newest(self, said: list[str] | None = None) -> str:
        return said[0] if said else self.fleet.engine.states()[0].id

    def _noted(self, since: int) -> list[str]:
        return [
            f"{duration(note.at - self.began)} {note.actor} {note.action}: {note.detail}"
            for note in self.fleet.audit[since:]
        ]

    def _stand(self) -> list[str]:
        serve = ", ".join(
            f"{count} serve {name}" for name, count in self.fleet.on_release().items()
        )
        return [f"{duration(self.fleet.now - self.began)} {serve or 'no device serves anything'}"]


def read_plan(said: list[str], base: Mapping[str, object] | None = None) -> RolloutSpec:
    """``2 --soak 10m`` as the plan that ``edgefleet rollout plan --release 2 --soak 10m`` makes."""
    command = knob_options(click.command("plan")(lambda **_: None))
    context = command.make_context("plan", ["--model", "digits", "--release", *said])
    return spec_of(context.params, base)


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)
