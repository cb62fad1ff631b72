"""edgefleet: put an AI model on a million edge devices, and take it back by itself.

Start with ARCHITECTURE.md. The layers, from the ground up: ``base`` (the doors to the world),
``protocol`` (what goes over the wire), ``security``, ``http1``, then ``rollout`` (the engine,
pure), ``serving`` and ``client``; on them ``hub`` and ``agent``; on top ``web``, ``sim``, ``cli``.
"""

__version__ = "0.1.0"
