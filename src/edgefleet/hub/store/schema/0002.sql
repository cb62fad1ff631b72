-- What a person said of the whole fleet: one value a name, the newest.
CREATE TABLE fleet_word (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A device that two releases went wrong on, and that a person let go on: "setbacks" it had then.
CREATE TABLE let_pass (
  device INTEGER NOT NULL REFERENCES device (row),
  model TEXT NOT NULL,
  setbacks INTEGER NOT NULL,
  PRIMARY KEY (device, model)
) STRICT, WITHOUT ROWID;
