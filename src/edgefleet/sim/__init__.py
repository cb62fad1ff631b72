"""Simulations with the real agent core and, in ``virtual``, the real rollout engine.

``load`` runs simulated devices against a real hub. ``virtual`` is a discrete-event simulation of
the hub and all devices in one process.
"""
