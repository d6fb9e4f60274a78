-- A lease is that of a run, or of a relay that works for one: `RUN/relay/FROM/INTO`. So its name is no longer that of a run's row.
CREATE TABLE leases_of_relays_too (
    run TEXT PRIMARY KEY NOT NULL,
    token INTEGER NOT NULL CHECK (token >= 1),
    holder_id TEXT,
    holder_name TEXT NOT NULL,
    holder_host TEXT NOT NULL,
    holder_boot TEXT NOT NULL,
    holder_pid INTEGER NOT NULL,
    holder_pid_started INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    renewed_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

INSERT INTO leases_of_relays_too SELECT * FROM leases;

DROP TABLE leases;

ALTER TABLE leases_of_relays_too RENAME TO leases;
