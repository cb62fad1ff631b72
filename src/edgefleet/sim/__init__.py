"""Simulated devices: the real agent core on a virtual clock, disk and network.

``world`` is the clock and what is to happen, ``disk`` and ``link`` are the other two doors of a
device, ``device`` does the effects of one agent core, ``fleet`` holds many of them. A fleet runs in
virtual time for itself, or at the pace of the wall clock against a real hub (``__main__``).
"""
