"""Public fixtures, for testing your own rollout policies."""
