"""Simulated devices that speak to a real hub: the real agent core on a virtual disk and link.

``event_loop`` is the clock and what is to happen, ``disk`` and ``link`` are the other two doors of
a device, ``device`` does the effects of one agent core, ``fleet`` holds many of them. ``__main__``
runs a fleet at the pace of the wall clock against a hub.
"""
