"""Simulated devices around the real agent core and, in ``virtual``, the real engine.

``load`` runs devices against a real hub; ``virtual`` runs the whole world in one process.
"""
