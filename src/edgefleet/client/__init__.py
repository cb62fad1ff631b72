"""The operator's typed way to a hub: what the CLI, the demo and other programs speak through."""
