"""Wire types (immutable) and the table of endpoints that hub, agent and clients share.

Most types ignore unknown fields, so that a newer peer can send more. Times are seconds since the
Unix epoch, sizes are bytes, digests are SHA-256 in lower-case hexadecimal.
"""
