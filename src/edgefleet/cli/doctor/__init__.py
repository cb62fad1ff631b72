"""``edgefleet doctor``: one file per check, each finding with its fix."""
