"""Metrics of every task, with the evidence for a paired comparison of two models."""
