"""Interfaces to the outside world (clock, storage, network, entropy), ids, errors and limits.

Standard library only. All other packages reach time, disk, network and randomness through these
interfaces, so the simulator can run the same code in a virtual world.
"""
