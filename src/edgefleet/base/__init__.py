"""The four doors to the world (clock, storage, network, entropy), with ids, errors and limits.

Standard library only. Everything above reaches time, disk, network and randomness through the
protocols defined here, so that the simulator can put a virtual world behind the same code.
"""
