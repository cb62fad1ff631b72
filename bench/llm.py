"""A language model as GGUF, quantised, in llama.cpp. Writes bench/out/llm.json.

The model has the shape of a LLaMA with 27 million weights, which are random, so it says nothing
about the quality of an answer. F16, Q8_0, Q4_0 and Q4_K_M of the same weights run in llama.cpp
(the wheel of xllamacpp), each in a process of its own with one thread, in turn. A row has the
medians of all turns; tokens/s are by processor time, with one thread. ``system`` names the
instructions that its kernels use, on which the order of the rows depends.

llama.cpp and gguf are in an environment outside of the clone (``EDGEFLEET_PEERS``, or a folder of
the user's cache), installed from requirements/llm with exact versions and hashes. They are no
dependency of edgefleet. ``make bench-llm`` needs about a minute, and the network the first time.
The exit code is 1 if a file is not as small as its limit, or generates no token.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import msgspec
from result_file import show, write
from serving_peer import Missing, environment, last_line

from edgefleet.optimize.gguf.choice import GgufBudget, GgufMeasurement, choose

HERE = Path(__file__).parent
LOCKS = HERE.parent / "requirements" / "llm"
QUANTS = ("F16", "Q8_0", "Q4_0", "Q4_K_M")
SMALLER = {"Q8_0": 1.85, "Q4_0": 3.4, "Q4_K_M": 3.2}
TIMEOUT_S = 900


def run(python: Path, program: str, *arguments: str) -> str:
    """The last line that a program prints. Raises Missing with its last line of errors."""
    command = [str(python), str(HERE / program), *arguments]
    found = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=found
    )
    if done.returncode:
        raise Missing(f"{program}: {last_line(done.stderr)}")
    return last_line(done.stdout)


def measured(quant: str, path: Path, turns: list[dict[str, float]]) -> GgufMeasurement:
    def middle(name: str) -> float:
        return float(median(one[name] for one in turns))

    return GgufMeasurement(
        quant=quant,
        size_bytes=path.stat().st_size,
        peak_memory_bytes=int(middle("peak_memory_bytes")),
        prompt_tokens_per_s=middle("prompt_tokens_per_s"),
        tokens_per_s=middle("tokens_per_s"),
    )


def ratios(one: GgufMeasurement, base: GgufMeasurement) -> dict[str, float]:
    """Against F16: how many times smaller or faster, and the share of its memory."""
    return {
        "smaller": base.size_bytes / one.size_bytes,
        "memory": one.peak_memory_bytes / base.peak_memory_bytes,
        "prompt": one.prompt_tokens_per_s / base.prompt_tokens_per_s,
        "generation": one.tokens_per_s / base.tokens_per_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="A language model as GGUF, quantised.")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512, help="a multiple of 256")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--generated", type=int, default=64, help="tokens")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            python = environment("llm", LOCKS)
            run(python, "llm_model.py", name, str(options.layers), str(options.width))
            turns: dict[str, list[dict[str, float]]] = {quant: [] for quant in QUANTS}
            system = ""
            for _ in range(options.turns):
                for quant in QUANTS:
                    path = folder / f"{quant}.gguf"
                    line = run(
                        python, "llm_run.py", str(path), str(options.prompt), str(options.generated)
                    )
                    turn = json.loads(line)
                    system = turn.pop("system")
                    turns[quant].append(turn)
        except Missing as why:
            print(f"not measured: {why}")
            return 1
        rows = [measured(quant, folder / f"{quant}.gguf", turns[quant]) for quant in QUANTS]
    against = {row.quant: ratios(row, rows[0]) for row in rows[1:]}
    good = True
    for quant, found in against.items():
        good = show(quant, found, {"smaller": (">=", SMALLER[quant])}) and good
    good = good and all(one["generated_tokens"] > 0 for row in turns.values() for one in row)
    choice = choose(rows, GgufBudget())
    print(choice.text)
    written = write(
        "llm",
        {
            "options": vars(options),
            "system": system,
            "rows": msgspec.to_builtins(rows),
            "against_f16": against,
            "choice": choice.text,
        },
    )
    print(f"{written}: written")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
