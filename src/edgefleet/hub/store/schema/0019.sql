-- The person at the provider whom a user is: (issuer, subject). Empty: a user of this hub.
ALTER TABLE user ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE user ADD COLUMN subject TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX user_identity ON user (issuer, subject) WHERE subject != '';
