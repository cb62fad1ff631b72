"""Golden files: what was said once is what must be said again.

``EDGEFLEET_REWRITE=1`` writes them anew; their diff is the review.
"""

import os
from pathlib import Path


def hold(file: Path, said: str) -> None:
    """Fail where ``said`` is not what stands in the file."""
    if os.environ.get("EDGEFLEET_REWRITE") == "1":
        file.write_text(said)
    assert said == file.read_text()
