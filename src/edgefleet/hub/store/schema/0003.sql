-- A device's own number of the attempt: what a withdrawal takes back is not a later start.
ALTER TABLE outcome ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
