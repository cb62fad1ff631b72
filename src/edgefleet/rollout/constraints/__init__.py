"""Limits on starts: reservations, exposure, rate, budgets, windows, approval, quarantine."""
