-- What tells a state store from any other SQLite database: "PhGs".
PRAGMA application_id = 1349011315;

-- The store itself: one row. Its identity stands in the claims that runs hold on their targets.
CREATE TABLE store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    identity TEXT NOT NULL CHECK (length(identity) = 36)
) STRICT;

-- A random UUID (version 4), drawn here so that no store is ever without one.
WITH random (hex) AS MATERIALIZED (SELECT lower(hex(randomblob(16))))
INSERT INTO store (only_row, identity)
SELECT 1,
       substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-4' || substr(hex, 14, 3) || '-'
       || substr('89ab', 1 + (unicode(substr(hex, 17, 1)) % 4), 1) || substr(hex, 18, 3) || '-'
       || substr(hex, 21, 12)
FROM random;

-- One row per run. The head is written in the transaction of every append, so that a journal whose end was cut off shows.
CREATE TABLE runs (
    run TEXT PRIMARY KEY NOT NULL,
    plan TEXT NOT NULL,
    environment TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended INTEGER NOT NULL CHECK (ended IN (0, 1)),
    head_version INTEGER NOT NULL CHECK (head_version >= 1),
    head_hash TEXT NOT NULL
) STRICT;

-- The journals. `body` is the record's exact bytes in the wire format; `hash` is that of the chain up to it.
CREATE TABLE records (
    run TEXT NOT NULL REFERENCES runs (run),
    version INTEGER NOT NULL CHECK (version >= 1),
    body BLOB NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (run, version)
) STRICT;

-- Who may act for a run. A row is never deleted, so that the token never falls; without `holder_id` nobody holds it.
CREATE TABLE leases (
    run TEXT PRIMARY KEY NOT NULL REFERENCES runs (run),
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

-- How far steps have come, for people who look. Nothing depends on it.
CREATE TABLE progress (
    run TEXT NOT NULL REFERENCES runs (run),
    step TEXT NOT NULL,
    rows_done INTEGER NOT NULL,
    rows_total INTEGER,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (run, step)
) STRICT;
