-- A rollout, and the last outcome before it: none of its own outcomes has a lower number.
ALTER TABLE rollout ADD COLUMN since INTEGER NOT NULL DEFAULT 0;

-- One row. Every outcome up to "outcome" is in the page of its rollout, if the rollout has a page;
-- "counts" has the number of these outcomes by kind. "sha256" is of the other values.
CREATE TABLE snapshot (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  counts TEXT NOT NULL,
  sha256 TEXT NOT NULL
) STRICT;

-- The page of a finished rollout, and its content in parts of a bounded size. Parts of a generation
-- that no page names are left over from a stop of the hub, and are removed.
CREATE TABLE page (
  rollout TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  parts INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE page_part (
  rollout TEXT NOT NULL,
  generation INTEGER NOT NULL,
  part INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (rollout, generation, part)
) STRICT;
