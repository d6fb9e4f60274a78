-- Of a run that came from another state store: the newest token that store had given for it. A claim on a target under a
-- token up to this one was made before the run came here. NULL for a run that began here.
ALTER TABLE runs ADD COLUMN taken_up_to INTEGER;
