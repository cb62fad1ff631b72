"""Golden sets that show a broken kernel, and planted faults that prove it."""
