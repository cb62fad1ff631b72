"""Build the distributions, install the wheel outside of the source tree, and use it from there.

1. Wheel and source distribution are built from this tree, and again from the unpacked source
   distribution with other file modes and times: the bytes must be equal.
2. The source distribution has the tracked files and no other.
3. ``twine check --strict`` accepts the metadata.
4. A new environment with requirements/all.txt and the wheel runs ``--version``, ``demo``, and a hub
   with one device that serves a release.
5. A new environment with requirements/device.txt and the wheel runs ``--version``, and an agent
   that enrols there.

The programs of 4 and 5 run in an empty folder. ``python bench/installed.py [FOLDER]`` takes the
first build from FOLDER (default dist).
"""

import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGAN = time.monotonic()
WAIT_S = 120.0
DEMO_DEVICES = 100
FULL, DEVICE = "all", "device"
"""The locks, and the environments that are made from them."""


def bare(home: Path) -> dict[str, str]:
    """The variables of a new user."""
    return {"PATH": os.defpath, "HOME": str(home)}


def run(*command: str | Path, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """The standard output. A failure ends this program with all output.

    Without ``variables`` the command has no settings of this process.
    """
    environ = bare(folder) if variables is None else variables
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", flush=True)


def distributions(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def build_again(sdist: Path, folder: Path) -> Path:
    """Build from the unpacked source distribution. Returns the unpacked tree."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tree = folder / sdist.name.removesuffix(".tar.gz")
    (tree / "PKG-INFO").unlink()  # made by the build, not a file of the source
    for path in (path for path in tree.rglob("*") if path.is_file()):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1e9, 1e9))
    run(sys.executable, "-m", "hatchling", "build", "-d", folder / "again", folder=tree)
    return tree


def check_equal(first: Path, second: Path) -> None:
    one, two = distributions(first), distributions(second)
    differ = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    if differ or len(one) != 2:
        raise SystemExit(f"not the same bytes in {first} and {second}: {', '.join(differ)}")
    say(f"built twice, the same bytes: {', '.join(sorted(one))}")


def check_files(tree: Path) -> None:
    """Raises SystemExit if a file of the source distribution is not tracked, or one is missing."""
    tracked = set(run("git", "ls-files", folder=ROOT, variables=os.environ).split("\n")) - {""}
    packed = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    if tracked != packed:
        raise SystemExit(f"not in both git and the source distribution: {sorted(tracked ^ packed)}")
    say(f"the source distribution has the {len(tracked)} tracked files")


def install(name: str, tree: Path, wheel: Path, folder: Path) -> Path:
    """An environment with the locked requirements and the wheel. Returns its program."""
    environment = folder / f"env-{name}"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    lock = tree / "requirements" / f"{name}.txt"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--require-hashes", "-r", lock, folder=folder, variables=own)
    run(*pip, "install", "--no-deps", "--no-index", wheel, folder=folder)
    run(*pip, "check", folder=folder)
    say(f"installed with {lock.relative_to(tree)}")
    return environment / "bin" / "edgefleet"


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, log: Path
) -> Iterator[subprocess.Popen[str]]:
    """A program that is ended at the end. Its log is shown if something fails."""
    with log.open("w") as errors:
        program = subprocess.Popen(
            command, cwd=folder, env=bare(folder), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield program
    except BaseException:
        print(f"{log.name}:\n{log.read_text()[-4000:]}", file=sys.stderr)
        raise
    finally:
        program.terminate()
        try:
            program.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()


class Operator:
    """The installed command line, with the hub's data folder."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def __call__(self, *words: str) -> Any:
        variables = {**bare(self._folder), "EDGEFLEET_DATA_DIR": str(self._folder / "hub")}
        command = (self._program, *words, "--json")
        told = run(*command, folder=self._folder, variables=variables)
        return json.loads(told.splitlines()[-1])

    def wait_for_device(self, name: str, agent: subprocess.Popen[str]) -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end and agent.poll() is None:
            if any(
                one["name"] == name and one["online"] for one in self("device", "list")["devices"]
            ):
                return
            time.sleep(0.5)
        raise SystemExit(f"{name} is not online (exit {agent.poll()})")


def check_version(name: str, program: Path, wheel: Path, folder: Path) -> None:
    """The program says the version of the wheel, also where only the base install is."""
    said, wanted = run(program, "--version", folder=folder).split(), wheel.name.split("-")[1]
    if said[-1:] != [wanted]:
        raise SystemExit(f"--version with {name}.txt: {' '.join(said)}, not {wanted}")
    say(f"{' '.join(said)} with {name}.txt")


def check_demo(program: Path, folder: Path) -> None:
    command = (program, "demo", "--devices", str(DEMO_DEVICES), "--json")
    done = subprocess.run(
        command, cwd=folder, env=bare(folder), capture_output=True, text=True, check=False
    )
    report = json.loads((done.stdout.splitlines() or ["{}"])[-1])
    if done.returncode:
        missed = [check["text"] for check in report.get("checks", ()) if not check["holds"]]
        raise SystemExit(
            f"{done.stderr}\nThe demo exits with {done.returncode}: {missed or report}"
        )
    if report["inference"]["failed"] or not report["inference"]["requests"]:
        raise SystemExit(f"the demo's requests: {report['inference']}")
    say(f"demo: {report['inference']['requests']} requests, none failed")


def check_agents(full: Path, device: Path, folder: Path) -> None:
    """A hub, an agent that serves, and an agent of the base install, each in its own program."""
    operator = Operator(full, folder)
    with ExitStack() as stack:
        serve = ("serve", "--json", "--data-dir", folder / "hub", "--interval", "1s")
        ports = ("--listen", "127.0.0.1:0", "--checkin-listen", "127.0.0.1:0")
        hub = stack.enter_context(running((full, *serve, *ports), folder, folder / "hub.log"))
        assert hub.stdout is not None
        url = json.loads(hub.stdout.readline())["url"]
        operator("key", "new")
        operator("model", "examples", "releases")
        operator("model", "publish", "releases/digits/release-1", "--trust")
        (folder / "publisher.pub").write_text(run(full, "key", "show", "--public", folder=folder))

        def agent(program: Path, name: str, port: int) -> subprocess.Popen[str]:
            (claim,) = operator("device", "claim")["claims"]
            claim_file = folder / f"{name}.claim"
            claim_file.touch(mode=0o600)
            claim_file.write_text(claim)
            words = ("agent", "run", "--hub", url, "--claim-file", claim_file, "--name", name)
            more = ("--profile", "generic_x86", "--trust", folder / "publisher.pub")
            place = ("--data-dir", folder / name, "--serve", f"127.0.0.1:{port}")
            command = (program, *words, *more, *place, "--label", f"install={name}")
            started = stack.enter_context(running(command, folder, folder / f"{name}.log"))
            operator.wait_for_device(name, started)
            return started

        base = agent(device, "base", free_port())
        say(f"an agent with {DEVICE}.txt alone is online")
        port = free_port()
        agent(full, "serving", port)
        plan = ("--model", "digits", "--release", "1", "--selector", "install=serving")
        waits = ("--waves", "100", "--confirm-after", "1s", "--soak", "1s", "--bake", "0s")
        ended = operator("rollout", "plan", *plan, *waits, "--watch")
        release = answered_by(port)
        if (ended["status"], release) != ("completed", "1"):
            raise SystemExit(f"the rollout is {ended['status']}, the answer is of {release}")
        say("an agent with the extra all took a release and answers with it")
        operator.wait_for_device("base", base)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answered_by(port: int) -> str:
    """The release that answers a request."""
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
    body = json.dumps({"inputs": [tensor]}).encode()
    url = f"http://127.0.0.1:{port}/v2/models/digits/infer"
    with urllib.request.urlopen(url, body, timeout=30) as reply:
        return str(json.load(reply)["model_version"])


def main() -> int:
    first = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").absolute()
    (wheel,), (sdist,) = first.glob("*.whl"), first.glob("*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="edgefleet-installed-") as name:
        folder = Path(name)
        tree = build_again(sdist, folder / "source")
        check_equal(first, folder / "source" / "again")
        check_files(tree)
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, folder=folder)
        say("twine accepts the metadata")
        programs = {lock: install(lock, tree, wheel, folder) for lock in (FULL, DEVICE)}
        work = folder / "empty"
        work.mkdir()
        for lock, program in programs.items():
            check_version(lock, program, wheel, work)
        check_demo(programs[FULL], work)
        check_agents(programs[FULL], programs[DEVICE], work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
