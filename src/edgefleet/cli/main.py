"""The program ``edgefleet``. The agent and the version come first: a device has no click."""

import os
import sys

from edgefleet import __version__

_CLI_MISSING = """\
edgefleet: the command line is not installed; this is the device's base install.
  hint:  `edgefleet agent` and `--version` work here; install the extra for the other commands.
  next:  pip install 'edgefleet[all]'
  code:  runtime_missing (exit 1)"""


def main() -> None:
    """Run the agent, or the named verb."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"edgefleet {__version__}\n")
        return
    if sys.argv[1:2] == ["agent"]:
        from edgefleet.agent.main import main as agent_main

        raise SystemExit(agent_main(sys.argv[2:]))
    if os.environ.get("_EDGEFLEET_COMPLETE", "").endswith("_complete"):
        from edgefleet.cli.completion import main as complete

        raise SystemExit(complete())
    try:
        from edgefleet.cli.group import root
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"{_CLI_MISSING}\n")
        raise SystemExit(1) from error
    root.main()


if __name__ == "__main__":
    main()
