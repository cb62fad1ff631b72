"""A small HTTP/1.1 server for the two hot paths: check-ins and inference."""
