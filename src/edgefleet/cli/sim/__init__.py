"""``edgefleet sim``: simulated fleets on the real engine and the real agent core."""
