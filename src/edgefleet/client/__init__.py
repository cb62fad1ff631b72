"""The one typed client of the hub's API, for CLI, page and scripts."""
