-- A removed device keeps its row, which its reports name. Its name gets "/row", so the name is free.
ALTER TABLE device ADD COLUMN removed_at REAL;
-- The name in the credential of a renamed device. Its position in rollouts comes from it, too. It
-- ends with "/row" if another device had that name first. NULL: the name of the device.
ALTER TABLE device ADD COLUMN enrolled_as TEXT;
