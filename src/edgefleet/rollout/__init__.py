"""The rollout engine: pure values in, values out. Start with ``table.py``.

A shell (the hub, the simulator) owns one ``Engine`` and makes no decision about rollouts itself.
Durable are one ``RolloutState`` for each rollout and the outcomes that devices reported. Every
other column is rebuilt from the states and the outcomes.
"""
