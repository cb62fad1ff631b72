"""Why something waits, from the decisions themselves, for people."""
