-- Labels that wait for their device. A row is removed once the device has acknowledged it.
CREATE TABLE truth (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- rises, and is never used again
  device INTEGER NOT NULL,
  model TEXT NOT NULL,
  label TEXT NOT NULL,
  at REAL NOT NULL
) STRICT;
