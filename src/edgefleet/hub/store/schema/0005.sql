-- A device has several models. Each distinct list [[model, release, phase], ...] is stored once, and
-- a standing names it by its number. A model that the device has not named is ''. Lists that no
-- standing names are removed when the hub starts.
CREATE TABLE model_list (
  number INTEGER PRIMARY KEY,
  models TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO model_list (models)
SELECT DISTINCT CASE
  WHEN release IS NULL AND phase = 'idle' THEN '[]'
  ELSE json_array(json_array(coalesce(model, ''), release, phase)) END
FROM standing;

-- What a device was last heard to run. Written lazily: a heartbeat costs no commit.
CREATE TABLE device_standing (
  row INTEGER PRIMARY KEY,
  last_seen REAL NOT NULL,
  seq INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  models INTEGER NOT NULL -- model_list.number; no reference, which would slow the removal
) STRICT;

INSERT INTO device_standing
SELECT row, last_seen, seq, 0, number FROM standing JOIN model_list ON models = CASE
  WHEN release IS NULL AND phase = 'idle' THEN '[]'
  ELSE json_array(json_array(coalesce(model, ''), release, phase)) END;

DROP TABLE standing;
