"""gRPC: its framing, calls and status on ``http2``, and the Open Inference Protocol v2 over it."""
