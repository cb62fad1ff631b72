"""Simulated devices against a real hub: the real agent core on a virtual disk and link.

``event_loop`` is the clock with its event queue. ``disk`` and ``link`` are a device's storage and
network, ``device`` executes the effects of one agent core, and ``fleet`` has many devices.
``__main__`` runs a fleet in real time against a hub.
"""
