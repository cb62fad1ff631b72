-- Devices whose quarantine for a model is in the audit log.
CREATE TABLE quarantine_noted (
  device INTEGER NOT NULL REFERENCES device (row),
  model TEXT NOT NULL,
  PRIMARY KEY (device, model)
) STRICT, WITHOUT ROWID;

-- Web hooks: position is the id of the last event that was delivered or became a dead letter.
CREATE TABLE web_hook (
  id TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  kinds TEXT NOT NULL, -- JSON
  note TEXT NOT NULL,
  secret TEXT NOT NULL, -- the key of the signatures
  created_at REAL NOT NULL,
  position INTEGER NOT NULL,
  missed INTEGER NOT NULL DEFAULT 0, -- events that left the log before they were delivered
  enabled INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE dead_letter (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  hook TEXT NOT NULL REFERENCES web_hook (id),
  event TEXT NOT NULL, -- JSON
  at REAL NOT NULL,
  attempts INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letter_of_hook ON dead_letter (hook, number);
