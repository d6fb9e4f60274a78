-- Who is there, and who follows whom: what plans/social-graph.yaml begins with. The graph beside it is empty.
CREATE TABLE users (
  id        bigint PRIMARY KEY,
  handle    text NOT NULL UNIQUE,
  name      text NOT NULL,
  bio       text,
  email     text NOT NULL,
  balance   numeric(12, 2) NOT NULL DEFAULT 0,
  joined_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE relations (
  follower_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
  followee_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
  kind        text NOT NULL DEFAULT 'follow' CHECK (kind IN ('follow', 'mute', 'block')),
  since       date NOT NULL DEFAULT current_date,
  PRIMARY KEY (follower_id, followee_id),
  CHECK (follower_id <> followee_id)
);
CREATE INDEX relations_followee ON relations (followee_id);

-- Each instance of the application says here every minute what it does.
CREATE TABLE instances (
  name         text PRIMARY KEY,
  writes_graph boolean NOT NULL DEFAULT false,
  seen_at      timestamptz NOT NULL DEFAULT now()
);
INSERT INTO instances (name) VALUES ('api-1'), ('api-2');

INSERT INTO users
SELECT n, 'user' || n, 'User ' || n, CASE WHEN n % 3 > 0 THEN 'Bio of ' || n END, 'user' || n || '@example.com', n % 1000 + 0.25,
       timestamptz '2025-01-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 3000) AS n;

-- Some are followed by many, most by few; one in fifty is muted or blocked instead.
INSERT INTO relations
SELECT a, b, CASE n % 100 WHEN 0 THEN 'mute' WHEN 50 THEN 'block' ELSE 'follow' END, date '2025-01-01' + n % 365
FROM (SELECT n, 1 + n % 3000 AS a, 1 + (n * n / 7) % (1 + n % 3000) AS b FROM generate_series(0, 11999) AS n) AS pairs
WHERE a <> b
ON CONFLICT DO NOTHING;
