"""The operator's typed client of a hub, for the CLI, the demo and other programs."""
