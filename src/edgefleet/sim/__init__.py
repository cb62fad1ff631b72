"""Simulated devices: the agent's own core in a virtual world."""
