-- One row a device; "row" is its place in the hub's columns and stands in its credential.
CREATE TABLE device (
  row INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  enrolled_at REAL NOT NULL,
  labels TEXT NOT NULL,
  facts TEXT NOT NULL
) STRICT;

-- What a device was last heard to run. Written lazily: a heartbeat costs no commit.
CREATE TABLE standing (
  row INTEGER PRIMARY KEY,
  last_seen REAL NOT NULL,
  seq INTEGER NOT NULL,
  model TEXT,
  release TEXT,
  phase TEXT NOT NULL
) STRICT;

-- Claims are known by their digests, so a copy of this file enrols nobody.
CREATE TABLE claim (
  digest TEXT PRIMARY KEY,
  labels TEXT NOT NULL,
  expires_at REAL NOT NULL,
  used_by INTEGER REFERENCES device (row)
) STRICT, WITHOUT ROWID;

CREATE TABLE trust (
  keyid TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  public_key TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE release (
  number INTEGER PRIMARY KEY,
  manifest_sha256 TEXT NOT NULL UNIQUE,
  model TEXT NOT NULL,
  release TEXT NOT NULL,
  envelope TEXT NOT NULL,
  signed_by TEXT NOT NULL,
  published_at REAL NOT NULL,
  UNIQUE (model, release)
) STRICT;

-- A rollout is one row, whatever the fleet: "state" is the engine's own.
CREATE TABLE rollout (
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- "number" is the order in which outcomes were counted, and in which they are counted again.
CREATE TABLE outcome (
  number INTEGER PRIMARY KEY,
  device INTEGER NOT NULL REFERENCES device (row),
  id TEXT NOT NULL,
  rollout TEXT NOT NULL,
  release TEXT NOT NULL,
  kind TEXT NOT NULL,
  at REAL NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  received_at REAL NOT NULL,
  UNIQUE (device, id)
) STRICT;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  about TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_stands BEFORE UPDATE ON audit
BEGIN SELECT RAISE (ABORT, 'the audit log is never changed'); END;

CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT RAISE (ABORT, 'the audit log is never shortened'); END;
