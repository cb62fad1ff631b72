"""The hub's durable state: ``sqlite`` with one ``writer`` thread; migrations in ``schema/``."""
