"""A small HTTP/1.1 server core for the two hot paths: check-ins and inference."""
