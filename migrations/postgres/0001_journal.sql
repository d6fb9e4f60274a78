-- The schema `phasegate` is there already: made on opening, or beforehand by whoever gave it to our role. The tables'
-- prefix keeps them apart from what runs keep in a target's schema of the same name.

-- The store itself: one row. Its identity stands in the claims that runs hold on their targets.
CREATE TABLE phasegate.state_store (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    identity text NOT NULL CHECK (length(identity) = 36)
);

INSERT INTO phasegate.state_store (only_row, identity) VALUES (1, gen_random_uuid()::text);

-- One row per run. The head is written in the transaction of every append, so that a journal whose end was cut off shows.
CREATE TABLE phasegate.state_runs (
    run text PRIMARY KEY,
    plan text NOT NULL,
    environment text NOT NULL,
    started_ms bigint NOT NULL,
    ended boolean NOT NULL,
    head_version bigint NOT NULL CHECK (head_version >= 1),
    head_hash text NOT NULL
);

-- The journals. `body` is the record's exact bytes in the wire format (UTF-8; `convert_from(body, 'UTF8')` shows it),
-- `hash` is that of the chain up to it.
CREATE TABLE phasegate.state_records (
    run text NOT NULL REFERENCES phasegate.state_runs (run),
    version bigint NOT NULL CHECK (version >= 1),
    body bytea NOT NULL,
    hash text NOT NULL,
    PRIMARY KEY (run, version)
);

-- Who may act for a run. A row is never deleted, so that the token never falls; without `holder_id` nobody holds it.
CREATE TABLE phasegate.state_leases (
    run text PRIMARY KEY REFERENCES phasegate.state_runs (run),
    token bigint NOT NULL CHECK (token >= 1),
    holder_id text,
    holder_name text NOT NULL,
    holder_host text NOT NULL,
    holder_boot text NOT NULL,
    holder_pid bigint NOT NULL,
    holder_pid_started bigint NOT NULL,
    since_ms bigint NOT NULL,
    renewed_ms bigint NOT NULL,
    expires_ms bigint NOT NULL
);

-- How far steps have come, for people who look. Nothing depends on it.
CREATE TABLE phasegate.state_progress (
    run text NOT NULL REFERENCES phasegate.state_runs (run),
    step text NOT NULL,
    rows_done bigint NOT NULL,
    rows_total bigint,
    at_ms bigint NOT NULL,
    PRIMARY KEY (run, step)
);
