"""Discrete-event simulation in one process: engine, hub, links and devices in virtual time."""
