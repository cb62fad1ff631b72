"""``python -m edgefleet.agent run``: run the agent."""

import sys

from edgefleet.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
