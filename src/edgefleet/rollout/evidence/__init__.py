"""The reports of devices about a rollout, and the gate that judges the evidence."""
