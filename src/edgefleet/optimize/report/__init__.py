"""The report of an optimisation: one HTML file without other files, and rows for a terminal."""
