-- What holds a step back, as JSON, for people who look.
ALTER TABLE progress ADD COLUMN throttled TEXT NOT NULL DEFAULT '[]';
