"""Makes the picture of a report: report_picture.py REPORT.html PICTURE.png. It needs chromium."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 1120, 1000
MOST_BYTES = 200_000


def main(report: Path, picture: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}", f"--window-size={WIDTH},{HEIGHT}",
             f"--screenshot={picture.absolute()}", report.absolute().as_uri()],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
    if picture.stat().st_size > MOST_BYTES:
        sys.exit(f"{picture} has {picture.stat().st_size} bytes; {MOST_BYTES} are the most")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
