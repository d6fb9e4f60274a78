-- A lease is that of a run, or of a relay that works for one: `RUN/relay/FROM/INTO`. So its name is no longer that of a run's row.
ALTER TABLE phasegate.state_leases DROP CONSTRAINT state_leases_run_fkey;
