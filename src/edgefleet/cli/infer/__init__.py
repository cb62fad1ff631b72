"""``edgefleet infer`` and ``edgefleet bench``: clients of a device's inference port."""
