"""Example models as data: release folders and field data, for the demo and for first steps.

``digits`` has four releases, two of them bad; ``parity`` has one. Their README.md have the source
and licence of the images. The programs that make them are in ``examples`` of the source tree.
"""

from importlib import resources
from pathlib import Path
from typing import Final

FOLDER: Final = Path(str(resources.files(__name__)))
MODELS: Final = ("digits", "parity")
