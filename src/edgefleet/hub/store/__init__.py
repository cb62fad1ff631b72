"""Where the hub keeps its durable state."""
