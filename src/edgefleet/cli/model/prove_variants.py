"""The publisher's proof: each variant runs the golden set in a child process."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Golden, Variant
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode

PROOF_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The golden set, and the timeout in seconds for one variant."""

    golden: Golden
    golden_path: Path
    timeout_s: float = PROOF_TIMEOUT_S

    def prove(self, variant: Variant, artifact: Path) -> ProveResult:
        """Run the golden set on a variant, as a device does.

        A model that crashes the runtime ends only the child process. Raises DeviceError
        ``runtime_missing``, PublisherError ``golden_failed`` or ``model_unsupported``.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise DeviceError(
                "runtime_missing",
                "The proof needs ONNX Runtime, which is not installed.",
                hint="Run `pip install 'edgefleet[serving]'`, or skip the proof with --skip-proof.",
            )
        request = ProveRequest(
            variant=variant,
            golden=self.golden,
            artifact_path=str(artifact.absolute()),
            golden_path=str(self.golden_path.absolute()),
        )
        result = self._run(request)
        if not result.passed:
            code = "golden_failed" if result.reason == "golden_failed" else "model_unsupported"
            raise PublisherError(code, f"{result.detail}", field=f"variant {variant.profile}")
        return result

    def _run(self, request: ProveRequest) -> ProveResult:
        try:
            child = subprocess.run(
                [sys.executable, "-m", "edgefleet.serving.prove"],
                input=encode(request),
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ProveResult(
                passed=False,
                reason="golden_failed",
                detail=f"The golden set took longer than {self.timeout_s:.0f} s.",
            )
        lines = child.stdout.splitlines()
        if not lines:
            errors = child.stderr.decode(errors="replace").strip().splitlines()
            last = f": {errors[-1]}" if errors else ""
            return ProveResult(
                passed=False,
                reason="load_failed",
                detail=f"The proof process exited with code {child.returncode}{last}.",
            )
        return decode(lines[-1], ProveResult, code="model_unsupported")
