-- A session of the holder's that is open for as long as it holds the lease, by its process id on the server and its start in
-- microseconds since 1970, which together are never another's. When it is gone the lease is free at once. NULL where there is
-- none: then the lease lapses by time alone.
ALTER TABLE phasegate.state_leases
    ADD COLUMN session_pid integer,
    ADD COLUMN session_began_us bigint;
