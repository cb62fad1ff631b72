"""Golden files: an output must be equal to the output in the file.

``EDGEFLEET_REWRITE=1`` rewrites the files. Review their diff.
"""

import os
from pathlib import Path


def hold(file: Path, said: str) -> None:
    """Fail if ``said`` is not the text of the file."""
    if os.environ.get("EDGEFLEET_REWRITE") == "1":
        file.write_text(said)
    assert said == file.read_text()
