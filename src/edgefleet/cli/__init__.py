"""The command line. ``main`` dispatches, ``tree`` lists the verbs, each noun has its module."""
