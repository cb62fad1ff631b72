-- The digest of the key of the device that the claim enrolled. Empty: its agent sent no key.
ALTER TABLE claim ADD COLUMN key_digest TEXT NOT NULL DEFAULT '';
