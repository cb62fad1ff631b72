"""The whole world in one process: engine, hub, links and devices in virtual time."""
