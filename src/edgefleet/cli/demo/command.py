"""``edgefleet demo``: canary rollouts and automatic rollback on this machine."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from edgefleet.base.clock import Clock, SystemClock
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.demo.choices import DEVICES_MAX, Fault
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean
from edgefleet.examples import FOLDER

if TYPE_CHECKING:
    from rich.console import Console

    from edgefleet.cli.demo.environment import DemoEnvironment
    from edgefleet.cli.demo.observations import StoryObservations
    from edgefleet.cli.demo.processes import Programs
    from edgefleet.cli.demo.story import Chapter
    from edgefleet.protocol.rollout import RolloutView


@verb(
    "demo",
    hub=False,
    exits=(Exit.FAILED,),
    examples=(
        "edgefleet demo",
        "edgefleet demo --stay --listen 127.0.0.1:8400",
        "edgefleet demo --json --devices 200",
        "edgefleet demo --break gate",
    ),
)
@click.option(
    "--devices",
    type=click.IntRange(20, DEVICES_MAX),
    default=1000,
    help="Number of simulated devices, besides the three real agents.",
)
@click.option("--seed", type=int, default=7, help="Random seed of the simulated devices.")
@click.option("--stay", is_flag=True, help="Keep everything running afterwards, until Ctrl-C.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    help="Address of the hub and its page; port 0 chooses a free port.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for all files and logs. Default: a temporary folder.",
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the examples. Default: those of this package.",
)
@click.option(
    "--break",
    "fault",
    type=click.Choice([fault.value for fault in Fault]),
    help="Plant a fault, to see that a check of the demo finds it.",
)
@pass_invocation
def demo(
    invocation: Invocation,
    /,
    *,
    devices: int,
    seed: int,
    stay: bool,
    listen: str,
    data_dir: Path | None,
    examples: Path | None,
    fault: str | None,
) -> int:
    """Show canary rollouts and automatic rollback on this machine, in a minute or a little more.

    Runs a hub, three real agents that serve handwritten digits to clients under constant load, and
    a thousand simulated devices, some slow, some flapping, some offline. Each agent switches
    releases between A/B slots. Four releases of one model go out: a first install, a better one in
    canary waves, a bad one that is rolled back automatically, and one that the devices refuse.
    While the bad one is on trial, a second model is added beside the first on every device.

    At its end the demo checks itself: no request to either model failed, each real device serves
    both models, no device runs a bad release, and no bad release reached more devices than its open
    wave allowed. It exits with 1 if a check fails.
    """
    from rich.console import Console

    from edgefleet.cli.demo.checks import judge
    from edgefleet.cli.demo.environment import DemoEnvironment, Plan
    from edgefleet.cli.demo.planted_faults import agent_of
    from edgefleet.cli.demo.processes import Programs
    from edgefleet.cli.demo.report import demo_report, show
    from edgefleet.client.discover import discover

    folder = _examples(examples)
    clock = SystemClock()
    progress = _Progress(Console(stderr=invocation.json, highlight=False), clock)
    with ExitStack() as stack:
        _interrupt_on_signals(stack)
        home = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefleet-demo-"))
        )
        planted = Fault(fault) if fault else None
        plan = Plan(
            folder=_fresh(home),
            fields=_fields(folder),
            agent=agent_of(planted),
            devices=devices,
            seed=seed,
            listen=listen,
        )
        programs = stack.enter_context(Programs())
        stage = DemoEnvironment(plan, programs, clock)
        try:
            observed = _run(stage, programs, folder, planted, progress)
        except NetworkError:
            programs.check()  # the log of a crashed program explains the broken connection
            raise
        checks = judge(observed)
        report = demo_report(observed, checks)
        if invocation.json:
            invocation.screen.answer(report, ())
        else:
            show(progress.console, report)
        if stay:
            link = discover(data_dir=stage.hub_folder, environ={}).client().people.login_link()
            progress.line(f"The page, for one login: {observed.url}{link.path}")
            progress.line("Hub and devices keep running. Press Ctrl-C to stop.")
            _stay(stage)
    if data_dir:
        progress.line(f"All files and logs are in {data_dir}.")
    return Exit.DONE if all(check.holds for check in checks) else Exit.FAILED


class _Progress:
    """Prints one line per event, with the seconds since the start."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self.console = console
        self._clock = clock
        self._began = clock.monotonic()

    @property
    def seconds(self) -> float:
        return self._clock.monotonic() - self._began

    def line(self, text: str) -> None:
        from rich.text import Text

        at = Text(f"{self.seconds:5.1f} s  ", "dim")
        self.console.print(Text.assemble(at, clean(text)), soft_wrap=True)


def _run(
    stage: DemoEnvironment,
    programs: Programs,
    examples: Path,
    fault: Fault | None,
    progress: _Progress,
) -> StoryObservations:
    """Run all acts. Stops after an act with a rollout that ends in an unexpected status."""
    from edgefleet.cli.demo.planted_faults import broken_plan, folder_of, strike
    from edgefleet.cli.demo.publishing import Publisher
    from edgefleet.cli.demo.story import ACTS, STORY, models_of, plan_of, run_act
    from edgefleet.cli.demo.traffic import read_questions

    clock = SystemClock()
    hub = stage.open_hub()
    progress.line(f"The hub listens at {hub.url}.")
    folders = {
        chapter: folder_of(fault, chapter, examples, stage.hub_folder.parent) for chapter in STORY
    }
    publisher = Publisher(folders, hub_folder=stage.hub_folder, key=stage.key)
    programs.callback(publisher.stop)
    fields = _fields(examples)
    stage.open_devices([read_questions(model, fields[model]) for model in models_of(STORY)])
    stage.wait_for_devices()
    fleet = hub.fleet()
    progress.line(f"{fleet.total:,} devices are enrolled, {fleet.online:,} are online.")
    rollouts: dict[Chapter, RolloutView] = {}
    for act in ACTS:
        for chapter in act:
            publisher.wait(chapter)
        if struck := strike(fault, act, stage.agents):
            progress.line(struck)
        views = run_act(
            hub,
            act,
            lambda chapter: broken_plan(fault, plan_of(chapter, fleet.total), chapter),
            clock=clock,
            report=progress.line,
            pause=stage.pause,
        )
        rollouts |= zip(act, views, strict=True)
        surprises = [chapter for chapter in act if rollouts[chapter].status is not chapter.ends]
        for chapter in surprises:
            status = rollouts[chapter].status
            progress.line(f"The demo stops: {chapter.name} is {status}, not {chapter.ends}.")
        if surprises:
            break
    else:
        stage.wait_until_settled(STORY)
    ended = tuple(rollouts.get(chapter) for chapter in STORY)
    return stage.observe(STORY, ended, seconds=progress.seconds)


def _stay(stage: DemoEnvironment) -> None:
    """Keep everything running until Ctrl-C, which is not a failure."""
    try:
        while True:
            stage.pause(1.0)
    except KeyboardInterrupt:
        return


def _fields(examples: Path) -> dict[str, Path]:
    """The file with the field data of each model of the story."""
    from edgefleet.cli.demo.story import STORY, models_of

    return {model: examples / model / "field.npz" for model in models_of(STORY)}


def _examples(given: Path | None) -> Path:
    """The folder of the examples. Raises OperatorError ``setting_invalid``."""
    folder = given or FOLDER
    missing = [model for model, field in _fields(folder).items() if not field.is_file()]
    if missing:
        raise OperatorError(
            "setting_invalid",
            f"The example {missing[0]} is not in {folder}.",
            field="examples",
            hint="Leave --examples out, or name a folder that `edgefleet model examples` wrote.",
        )
    return folder


def _fresh(folder: Path) -> Path:
    """The empty folder. Raises OperatorError ``setting_invalid`` if it is not empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OperatorError(
            "setting_invalid",
            f"{folder} is not empty.",
            field="data_dir",
            hint="Use --data-dir with a new folder.",
        )
    return folder.absolute()


def _interrupt_on_signals(stack: ExitStack) -> None:
    """SIGTERM and SIGHUP end the programs as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            stack.callback(signal.signal, number, signal.signal(number, interrupt))
