-- What a person said of the whole fleet: one value a name, the newest.
CREATE TABLE fleet_word (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A device that a person took out of quarantine: "rollbacks" it had then.
CREATE TABLE unquarantined (
  device INTEGER NOT NULL REFERENCES device (row),
  model TEXT NOT NULL,
  rollbacks INTEGER NOT NULL,
  PRIMARY KEY (device, model)
) STRICT, WITHOUT ROWID;
