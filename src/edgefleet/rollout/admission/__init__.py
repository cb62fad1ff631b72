"""Admission control: which device may start, and which may download."""
