"""What devices reported about a rollout, and the gate that judges it."""
