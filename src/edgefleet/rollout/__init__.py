"""The rollout engine: pure values in, values out. Start with ``table.py``."""
