-- Copied devices: "runs" has {run: last check-in} of the agents that use the credential.
CREATE TABLE copied (
  row INTEGER PRIMARY KEY,
  runs TEXT NOT NULL
) STRICT;
