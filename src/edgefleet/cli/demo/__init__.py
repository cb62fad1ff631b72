"""``edgefleet demo``: the main job on this machine, from publish to automatic revert.

Nothing in it is pretended: a hub, agents that serve a real model, a simulated fleet that runs the
agents' own core, all spoken to over HTTP. At the end it judges itself (``checks``).
"""
