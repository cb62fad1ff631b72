-- Labels that the device itself reports. Those of the operator are in "labels" and override them.
ALTER TABLE device ADD COLUMN own_labels TEXT NOT NULL DEFAULT '{}';
