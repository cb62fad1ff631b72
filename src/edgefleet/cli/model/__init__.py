"""``edgefleet model``: what is published, and publishing."""
