"""Compares two model files, or the variants of two release folders."""
