"""The rollout engine: pure values in, values out. Start with ``table.py``.

A shell (the hub, the simulator) holds one ``Engine`` and does nothing about rollouts by itself.
What is durable is a ``RolloutState`` a rollout and the outcomes that devices reported; every other
column is rebuilt from those two.
"""
