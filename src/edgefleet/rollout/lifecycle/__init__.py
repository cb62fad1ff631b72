"""The state machine of a rollout: durable state, transition table, and one step."""
