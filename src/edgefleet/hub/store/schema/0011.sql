-- The same wrong bytes of two downloads, with a deferral: SHA-256 of the artifact and of the bytes.
ALTER TABLE outcome ADD COLUMN expected TEXT NOT NULL DEFAULT '';
ALTER TABLE outcome ADD COLUMN found TEXT NOT NULL DEFAULT '';
