"""The HTTP server imports no inference runtime."""

import subprocess
import sys

HEAVY = ("numpy", "onnxruntime", "onnx", "starlette", "uvicorn", "jinja2", "click", "rich")


def loaded_with(module: str) -> set[str]:
    """The heavy packages that an import of ``module`` loads in a new process."""
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split()) & set(HEAVY)


def test_http1_loads_nothing_heavy() -> None:
    assert loaded_with("edgefleet.http1.server") == set()


def test_the_question_finds_what_is_heavy() -> None:
    assert loaded_with("edgefleet.serving.server") == {"numpy"}
