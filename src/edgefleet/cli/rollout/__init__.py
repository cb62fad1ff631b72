"""``edgefleet rollout``: plan, start, watch, control and show rollouts."""
