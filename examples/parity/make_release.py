"""Makes the release of the ``parity`` model, its field data and README.md, from a seed.

    python examples/parity/make_release.py [folder]

Run twice on one machine it writes the same bytes. The model answers another question about the
images of ``examples/digits``, and is made with the functions of that example.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "digits"))

from make_releases import Recipe, make_all

from edgefleet.examples import FOLDER

RECIPE = Recipe("1", "Even or odd.", (24,), epochs=120, seed=5, roughness=1.0,
                model="parity", classes=2)  # fmt: skip

README = """\
# Parity: a second model for the same camera

Written by `make_release.py` from the images of [digits](../digits): 1,100 to train on, 397 for the
golden set, and 300 as a cheap camera sees them in the field (`field.npz`). The model answers
whether the digit is even (0) or odd (1). It shares no file with the digits model: devices serve
both, each with its own releases, slots and rollouts.

`release-1` is a release folder (`docs/release-folder.md`) with a variant for each known profile.

{table}

The columns, and the source and licence of the images, are explained in [digits](../digits/README.md).
"""

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "parity"
    make_all((RECIPE,), lambda digits: digits % 2, README, target)
