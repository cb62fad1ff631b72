"""The proof of a candidate, in a separate process with a time and a memory limit.

A model that crashes its runtime, uses too much memory or never answers ends that process only. It
counts as a model that cannot be loaded.
"""

import contextlib
import resource
import subprocess
from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent.slots import GOLDEN, MODEL, path
from edgefleet.agent.state import InstalledRelease, SlotName
from edgefleet.agent.worker import Token
from edgefleet.base.errors import EdgefleetError
from edgefleet.base.storage import Storage
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode


class Prover:
    """Runs one proof at a time."""

    def __init__(
        self, storage: Storage, command: Sequence[str], *, timeout_s: float = limits.PROVE_S
    ) -> None:
        self._storage = storage
        self._command = tuple(command)
        self._timeout_s = timeout_s

    def prove(self, slot: SlotName, installed: InstalledRelease, token: Token) -> ProveResult:
        """Run the golden set on the slot's model. Raises Stopped."""
        request = ProveRequest(
            variant=installed.variant,
            golden=installed.golden,
            artifact_path=self._storage.locate(path(installed.model, slot, MODEL)),
            golden_path=self._storage.locate(path(installed.model, slot, GOLDEN)),
        )
        token.check()
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._bound_memory(child.pid, installed)
        with token.ending(child.kill):
            try:
                output, errors = child.communicate(encode(request), timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                return _failed(f"The proof took longer than {self._timeout_s:g} s.")
        token.check()
        lines = output[-limits.PROVE_OUTPUT_BYTES :].strip().split(b"\n")
        try:
            return decode(lines[-1], ProveResult)
        except EdgefleetError:
            last_line = errors.decode(errors="replace").strip().rpartition("\n")[2][:300]
            return _failed(f"The proof ended with {child.returncode}: {last_line or 'no output'}")

    @staticmethod
    def _bound_memory(pid: int, installed: InstalledRelease) -> None:
        """Limit the memory of the process before it reads its request."""
        bound = (installed.variant.memory_limit_mib + limits.PROVE_SLACK_MIB) << 20
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (bound, bound))


def _failed(detail: str) -> ProveResult:
    return ProveResult(passed=False, reason="load_failed", detail=detail)
