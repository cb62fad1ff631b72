"""What goes over the wire: frozen types, and one table of endpoints that every side reads.

Unknown fields are ignored when read, so that a newer peer can say more. Times are seconds since the
Unix epoch, sizes bytes, digests SHA-256 in lower-case hexadecimal.
"""
