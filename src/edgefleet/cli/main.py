"""The program ``edgefleet``. The agent's way in stands first: it needs none of the rest."""

import sys
from typing import NoReturn

_CLI_MISSING = """\
edgefleet: the command line is not installed; this is the device's base install.
  hint:  `edgefleet agent run` works here; for the rest add the extra.
  next:  pip install 'edgefleet[all]'
  code:  runtime_missing (exit 1)"""


def main() -> NoReturn:
    """Hand over to the agent, or to the verb that is named."""
    if sys.argv[1:2] == ["agent"]:
        from edgefleet.agent.main import main as agent_main  # noqa: PLC0415 - a device has no click

        raise SystemExit(agent_main(sys.argv[2:]))
    try:
        from edgefleet.cli.group import root  # noqa: PLC0415 - after the agent's way in
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"{_CLI_MISSING}\n")
        raise SystemExit(1) from error
    root.main()


if __name__ == "__main__":
    main()
