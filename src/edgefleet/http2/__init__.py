"""A small HTTP/2 server core (RFC 9113) for inference over gRPC."""
