"""``edgefleet rollout``: plan, start, follow, steer and look at rollouts."""
