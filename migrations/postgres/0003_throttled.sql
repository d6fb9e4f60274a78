-- What holds a step back, as JSON, for people who look.
ALTER TABLE phasegate.state_progress ADD COLUMN throttled text NOT NULL DEFAULT '[]';
