"""``edgefleet demo``: the whole story on this machine."""

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.text import Text

import edgefleet
from edgefleet.base.clock import Clock, SystemClock
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.demo.checks import judge
from edgefleet.cli.demo.environment import DemoEnvironment, Plan, bad_releases
from edgefleet.cli.demo.faults import Fault, folder_of, gate_of, strike
from edgefleet.cli.demo.limits import DEVICES_MAX
from edgefleet.cli.demo.observations import StorySeen
from edgefleet.cli.demo.processes import Programs
from edgefleet.cli.demo.publishing import Publisher
from edgefleet.cli.demo.report import demo_report, show
from edgefleet.cli.demo.story import STORY, tell_rollout
from edgefleet.cli.demo.traffic import read_questions
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean
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
    help="Simulated devices, beside the three real agents.",
)
@click.option("--seed", type=int, default=7, help="Of the simulated devices' chance.")
@click.option("--stay", is_flag=True, help="Keep everything running afterwards, until Ctrl-C.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    help="Where the hub and its page listen; port 0 takes a free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for all that is written, logs too; unless given, a temporary one.",
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the digits example; unless given, the one of this source tree.",
)
@click.option(
    "--break",
    "fault",
    type=click.Choice([fault.value for fault in Fault]),
    help="Plant a fault, to see the demo find it.",
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
    """Tell the whole story on this machine, in about a minute.

    A hub, three real agents that serve handwritten digits to clients who never stop asking, and a
    thousand simulated devices, some slow, some flapping, some gone. Four releases of one model go
    out: a first one, a better one in waves, one that is bad in the field and is taken back from
    every device, and one that the devices refuse.

    At its end the demo checks itself: no request failed, nobody runs a bad release, no bad release
    reached more devices than the open wave allowed. It ends with 1 when a check fails.
    """
    folder = _examples(examples)
    clock = SystemClock()
    narrator = _Narrator(Console(stderr=invocation.json, highlight=False), clock)
    with ExitStack() as stack:
        _end_politely(stack)
        home = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefleet-demo-"))
        )
        plan = Plan(
            folder=_fresh(home),
            field=folder / "field.npz",
            devices=devices,
            seed=seed,
            listen=listen,
        )
        programs = stack.enter_context(Programs())
        stage = DemoEnvironment(plan, programs, clock)
        try:
            seen = _tell(stage, programs, folder, Fault(fault) if fault else None, narrator)
        except NetworkError:
            programs.check()  # a program that died says more than the connection that broke
            raise
        checks = judge(seen)
        report = demo_report(seen, checks)
        if invocation.json:
            invocation.screen.answer(report, ())
        else:
            show(narrator.console, report)
        if stay:
            token = (stage.hub_folder / "operator.token").read_text().strip()
            narrator.tell(f"The page: {seen.url}/?token={token}")
            narrator.tell("Everything goes on until Ctrl-C.")
            _stay(stage)
    if data_dir:
        narrator.tell(f"Everything written is in {data_dir}.")
    return Exit.DONE if all(check.holds for check in checks) else Exit.FAILED


class _Narrator:
    """One line for each thing that happens, with the seconds since the beginning."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self.console = console
        self._clock = clock
        self._began = clock.monotonic()

    @property
    def seconds(self) -> float:
        return self._clock.monotonic() - self._began

    def tell(self, text: str) -> None:
        at = Text(f"{self.seconds:5.1f} s  ", "dim")
        self.console.print(Text.assemble(at, clean(text)), soft_wrap=True)


def _tell(
    stage: DemoEnvironment,
    programs: Programs,
    examples: Path,
    fault: Fault | None,
    narrator: _Narrator,
) -> StorySeen:
    """The story, until its end or until a chapter ends as it must not."""
    clock = SystemClock()
    hub = stage.open_hub()
    narrator.tell(f"The hub listens at {hub.url}.")
    folders = {
        chapter: folder_of(fault, chapter, examples, stage.hub_folder.parent) for chapter in STORY
    }
    publisher = Publisher(folders, hub_folder=stage.hub_folder, key=stage.key)
    programs.callback(publisher.stop)
    stage.open_devices(read_questions(examples / "field.npz"))
    stage.wait_for_devices()
    fleet = hub.fleet()
    narrator.tell(f"{fleet.total:,} devices have enrolled, {fleet.online:,} are online.")
    rollouts: list[RolloutView | None] = [None] * len(STORY)
    for place, chapter in enumerate(STORY):
        publisher.wait(chapter.release)
        narrator.tell(chapter.opening)
        if struck := strike(fault, chapter, stage.agents):
            narrator.tell(struck)
        view = tell_rollout(
            hub,
            chapter,
            gate_of(fault, chapter),
            fleet.total,
            clock=clock,
            tell=narrator.tell,
            pause=stage.pause,
        )
        rollouts[place] = view
        if view.status is not chapter.ends:
            narrator.tell(f"This was not to be: {chapter.ends} was expected. The story ends here.")
            break
    else:
        stage.wait_until_settled(bad_releases(STORY))
    return stage.seen(STORY, tuple(rollouts), seconds=narrator.seconds)


def _stay(stage: DemoEnvironment) -> None:
    """Until Ctrl-C, which is how one leaves and no failure."""
    try:
        while True:
            stage.pause(1.0)
    except KeyboardInterrupt:
        return


def _examples(said: Path | None) -> Path:
    """The example's folder. Raises OperatorError ``not_found``."""
    folder = said or Path(edgefleet.__file__).parents[2] / "examples" / "digits"
    if not (folder / "field.npz").is_file():
        raise OperatorError(
            "not_found",
            f"The digits example is not in {folder}.",
            field="examples",
            hint="Run the demo in a clone of the source, or name the folder with --examples.",
        )
    return folder


def _fresh(folder: Path) -> Path:
    """The demo starts from nothing. Raises OperatorError ``setting_invalid``."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OperatorError(
            "setting_invalid", f"{folder} is not empty.", field="data_dir", hint="Name a new one."
        )
    return folder.absolute()


def _end_politely(stack: ExitStack) -> None:
    """SIGTERM and a terminal that was closed end the programs too, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            stack.callback(signal.signal, number, signal.signal(number, interrupt))
