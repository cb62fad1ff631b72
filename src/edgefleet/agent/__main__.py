"""``python -m edgefleet.agent run``: wire the shell together and live."""

import sys

from edgefleet.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
