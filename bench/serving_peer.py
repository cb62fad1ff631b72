"""The environment of another inference server, and its processes, for bench/serving_peers.py."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import msgspec
from serving_models import Process

HERE = Path(__file__).parent
LOCKS = HERE.parent / "requirements" / "peers"
START_S = 120.0


class Missing(Exception):  # noqa: N818 - a result, not a mistake
    """A peer that cannot be measured, with the reason."""


class Variant(msgspec.Struct, frozen=True):
    """A peer with its batching off (1) or on (up to so many requests)."""

    peer: str
    batch: int
    path: str

    @property
    def name(self) -> str:
        return f"{self.peer}, batches" if self.batch > 1 else self.peer


def environment(peer: str, locks: Path = LOCKS) -> Path:
    """The Python of the peer's environment, which is made if it is not there. Raises Missing."""
    lock = locks / f"{peer}.txt"
    key = sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = os.environ.get("EDGEFLEET_PEERS") or Path.home() / ".cache" / "edgefleet" / "peers"
    folder = Path(cache) / f"{peer}-{key}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    commands = (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"not installed: {last_line(done.stderr)}")
    ready.touch()
    return python


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason")


def ask(address: tuple[str, int], asked: bytes) -> bytes:
    """The body of one answer. Raises OSError if there is none with status 200."""
    with socket.create_connection(address, 10) as link:
        link.sendall(asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = b"".join(iter(lambda: link.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(answer[:200].decode(errors="replace"))
    return body


class Peer(Process):
    """The program of a peer, with all processes that it starts."""

    def __init__(self, variant: Variant, model: str, log: Path, core: int) -> None:
        python = environment(variant.peer)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        program = str(HERE / "peers" / f"serve_{variant.peer}.py")
        self._log = log
        with log.open("wb") as errors:
            try:
                command = [str(python), program, model, port, str(variant.batch)]
                super().__init__(command, core, errors=errors)
            except ValueError:  # it printed no URL
                raise Missing(self._reason("not started")) from None

    def cpu_s(self) -> float:
        return self.tree_cpu_s()

    def wait_ready(self, asked: bytes) -> bytes:
        """The first answer. Raises Missing if there is none in time."""
        stops = time.monotonic() + START_S
        why = ""
        while time.monotonic() < stops and self.process.poll() is None:
            try:
                return ask(self.address, asked)
            except OSError as error:
                why = last_line(str(error))
                time.sleep(0.2)
        raise Missing(self._reason(f"no answer ({why})"))

    def end(self) -> None:
        pids = self.tree()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid in reversed(pids):  # some leave their children behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _reason(self, what: str) -> str:
        return f"{what}: {last_line(self._log.read_text(errors='replace'))}"
