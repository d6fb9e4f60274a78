-- What the statements of postgres.txt are about.
CREATE SCHEMA crm;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TYPE pair AS (first int, second text);
CREATE DOMAIN short_text AS text CHECK (length(value) < 100);
CREATE SEQUENCE numbers;

CREATE TABLE leads (
    id int PRIMARY KEY,
    status varchar(20),
    email text,
    note text,
    amount numeric(10, 2),
    agent_id int
);
INSERT INTO leads SELECT n, 'new', 'a' || n || '@example.org', '{}', n, 1 + n % 3 FROM generate_series(1, 500) AS n;
CREATE UNIQUE INDEX leads_email_key ON leads (email);
ALTER TABLE leads ADD CONSTRAINT pending CHECK (amount > 0) NOT VALID;

CREATE TABLE agents (id int PRIMARY KEY, name text);
INSERT INTO agents SELECT n, 'agent' FROM generate_series(1, 3) AS n;
CREATE TABLE crm.agents (id int PRIMARY KEY, name text);
CREATE TABLE visits (agent_id int);
ALTER TABLE visits ADD CONSTRAINT visits_agent FOREIGN KEY (agent_id) REFERENCES crm.agents (id) NOT VALID;
CREATE TABLE leads_v2 (LIKE leads INCLUDING ALL);

CREATE TABLE empty (id int);
CREATE UNIQUE INDEX empty_id_key ON empty (id);
CREATE TABLE parents (id int);
CREATE TABLE children () INHERITS (parents);

CREATE TABLE events (id int) PARTITION BY RANGE (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
CREATE TABLE events_3 (id int);
INSERT INTO events_3 SELECT n FROM generate_series(200, 250) AS n;

CREATE VIEW lead_names AS SELECT id, email FROM leads;
CREATE MATERIALIZED VIEW lead_counts AS SELECT status, count(*) AS count FROM leads GROUP BY status;
CREATE UNIQUE INDEX lead_counts_key ON lead_counts (status);

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION touch_all() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
CREATE FUNCTION my_default() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION is_good(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
CREATE FUNCTION crm.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE PROCEDURE tidy() LANGUAGE sql AS $$ SELECT 1 $$;
CREATE TRIGGER leads_touch BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION touch();
CREATE POLICY own ON leads USING (true);
