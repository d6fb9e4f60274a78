-- What plans/session-tags.yaml begins with.
CREATE TABLE archived_sessions (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_name   text NOT NULL,
  started_at  timestamptz NOT NULL,
  ended_at    timestamptz,
  settings    jsonb NOT NULL DEFAULT '{}'
);

INSERT INTO archived_sessions (user_name, started_at, ended_at, settings)
SELECT
  'user' || n % 40,
  timestamptz '2025-01-01 00:00:00+00' + n * interval '17 minutes',
  timestamptz '2025-01-01 00:00:00+00' + n * interval '17 minutes' + interval '1 hour',
  jsonb_build_object('theme', CASE n % 2 WHEN 0 THEN 'dark' ELSE 'light' END)
FROM generate_series(1, 3000) AS n;
