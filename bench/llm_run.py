"""Loads one GGUF file in llama.cpp and answers one prompt. Runs in the environment of bench/llm.py.

Prints the figures as JSON: tokens of the prompt and of the generation in a second of processor
time, which other programs on the machine change less than time, and the peak memory of the process.
One thread; the file is read, not mapped, so that its weights count.

    python bench/llm_run.py FILE PROMPT_TOKENS GENERATED_TOKENS
"""

import json
import resource
import sys
import time
from typing import Any

import xllamacpp


def main() -> None:
    path, prompt, generated = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 512
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = 1
    server = xllamacpp.Server(params)
    tokens = list(range(3, 3 + prompt))
    answered(server, tokens[:8], 2)  # the first run makes buffers
    first_s, _ = answered(server, tokens, 1)
    whole_s, timings = answered(server, tokens, generated)
    result = {
        "prompt_tokens_per_s": prompt / first_s,
        "tokens_per_s": (generated - 1) / max(whole_s - first_s, 1e-9),
        "prompt_tokens": timings["prompt_n"],
        "generated_tokens": timings["predicted_n"],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "system": xllamacpp.get_system_info(),
    }
    print(json.dumps(result), flush=True)


def answered(
    server: xllamacpp.Server, tokens: list[int], generated: int
) -> tuple[float, dict[str, Any]]:
    """The seconds of processor time of one answer, and what llama.cpp says of it."""
    began = time.process_time()
    answer = server.handle_completions(
        {
            "prompt": tokens,
            "n_predict": generated,
            "max_tokens": generated,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": False,
        }
    )
    found = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return time.process_time() - began, found["timings"]


if __name__ == "__main__":
    main()
