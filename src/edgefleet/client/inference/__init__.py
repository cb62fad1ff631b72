"""A client of Open Inference Protocol v2 over REST: single inferences, and load for benchmarks."""
