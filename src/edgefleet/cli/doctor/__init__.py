"""``edgefleet doctor``: one file a check, each with its fix."""
