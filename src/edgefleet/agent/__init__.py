"""The device agent: a pure core (state, table, step) and the shell that does its effects."""
