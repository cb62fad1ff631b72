"""``edgefleet model``: publish releases, and list them."""
