"""``edgefleet demo``: the main job on this machine, from publish to automatic rollback.

The hub and the agents are real, and the agents serve a real model. The simulated devices run the
agent's own core. All communicate over HTTP. At its end the demo checks its own result (``checks``).
"""
