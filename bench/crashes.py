"""Power cuts on a device with three models: thousands of histories with up to three cuts.

Every storage operation is cut before, within and after it. Further histories are drawn: one to
three cuts, with or without a lost state file, with or without a living serving process. Each must
leave valid releases in the pointer and in the serving process, and come to the right end. Writes
bench/out/crashes.json. The exit code is 1 if a history fails.

``python bench/crashes.py [NUMBER]`` draws NUMBER histories (default 5600).
"""

import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

from result_file import write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from edgefleet.agent import limits  # noqa: E402 - after the path
from support.crash_histories import (  # noqa: E402 - after the path
    History,
    drawn,
    every_cut,
    live,
    on_release_1,
    operations,
)

SEED = 5
BATCH = 200


def run(histories: Iterable[History]) -> list[str]:
    """The histories that fail, each with its reason."""
    limits.FLUSH_BYTES = 48  # type: ignore[misc] - so that a small download has many pieces
    start, failed = on_release_1(), []
    for history in histories:
        try:
            live(start, history)
        except AssertionError as error:
            failed.append(f"{history}: {str(error)[:300]}")
    return failed


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5600
    limits.FLUSH_BYTES = 48  # type: ignore[misc] - as in ``run``
    count = operations(on_release_1())
    histories = list(chain(every_cut(count), drawn(count, number, seed=SEED)))
    batches = [histories[at : at + BATCH] for at in range(0, len(histories), BATCH)]
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        failed = list(chain.from_iterable(pool.map(run, batches)))
    figures = {"operations": count, "histories": len(histories), "failed": len(failed)}
    write("crashes", figures | {"failures": failed})
    print("\n".join(failed[:10]))
    print(json.dumps(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
