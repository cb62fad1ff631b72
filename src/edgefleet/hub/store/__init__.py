"""Where the hub keeps what must last: ``sqlite`` on one ``writer`` thread, ``schema/`` in steps."""
