"""The hub: the shell around the rollout engine (registry, device plane, operator API, store)."""
