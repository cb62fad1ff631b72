"""The life of a rollout: its durable state, the table of transitions, and the step along it."""
