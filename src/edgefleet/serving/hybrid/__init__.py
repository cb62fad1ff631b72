"""Hybrid inference: another endpoint answers requests that this device cannot answer well.

``policy``, ``budget``, ``breaker`` and ``answer`` are pure. ``upstream`` has the connections, and
``door`` joins them at the door of the transport.
"""
