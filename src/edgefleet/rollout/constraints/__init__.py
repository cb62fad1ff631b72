"""What limits a start: reservations, exposure, rate, budgets, windows, approval, quarantine."""
