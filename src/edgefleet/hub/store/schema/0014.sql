-- Users, their API tokens and their sessions on the page. Only digests of secrets are stored.
CREATE TABLE user (
  name TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  source TEXT NOT NULL,
  password TEXT NOT NULL, -- scrypt; empty: none
  disabled INTEGER NOT NULL,
  created_at REAL NOT NULL
) STRICT;

CREATE TABLE api_token (
  id TEXT PRIMARY KEY,
  user TEXT NOT NULL REFERENCES user (name),
  digest TEXT NOT NULL,
  role TEXT NOT NULL,
  note TEXT NOT NULL,
  created_at REAL NOT NULL,
  expires_at REAL,
  revoked_at REAL,
  last_used REAL
) STRICT;

-- user: a user, or operator for the operator token. proof: what must still be valid, see hub.logins.
CREATE TABLE session (
  digest TEXT PRIMARY KEY,
  user TEXT NOT NULL,
  role TEXT NOT NULL,
  way TEXT NOT NULL,
  proof TEXT NOT NULL,
  expires_at REAL NOT NULL
) STRICT;

-- How and from where the actor acted. Empty: a device, a gate, or an entry of an earlier version.
ALTER TABLE audit ADD COLUMN way TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
