-- Devices ahead of the hub: "given" has [[model, rollout], ...] of which the hub has no record.
CREATE TABLE ahead (
  row INTEGER PRIMARY KEY,
  given TEXT NOT NULL
) STRICT;
