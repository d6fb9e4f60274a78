-- What plans/deprecate-social.yaml begins with: the social tables of migration 004, and those of migration 100, which the
-- social-service has filled with most of what there was.
CREATE TABLE likes (
  user_id    bigint NOT NULL,
  post_id    bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, post_id)
);
CREATE TABLE comments (
  id         bigint PRIMARY KEY,
  post_id    bigint NOT NULL,
  user_id    bigint NOT NULL,
  content    text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE post_shares (
  id         bigint PRIMARY KEY,
  post_id    bigint NOT NULL,
  user_id    bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE social_metadata (
  post_id       bigint PRIMARY KEY,
  like_count    bigint NOT NULL DEFAULT 0,
  comment_count bigint NOT NULL DEFAULT 0,
  share_count   bigint NOT NULL DEFAULT 0
);

-- Each like, comment and share is counted. One of these triggers was disabled long ago, and must stay so.
CREATE FUNCTION count_like() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO social_metadata AS m (post_id, like_count) VALUES (NEW.post_id, 1)
  ON CONFLICT (post_id) DO UPDATE SET like_count = m.like_count + 1;
  RETURN NULL;
END
$$;
CREATE FUNCTION count_comment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO social_metadata AS m (post_id, comment_count) VALUES (NEW.post_id, 1)
  ON CONFLICT (post_id) DO UPDATE SET comment_count = m.comment_count + 1;
  RETURN NULL;
END
$$;
CREATE FUNCTION count_share() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO social_metadata AS m (post_id, share_count) VALUES (NEW.post_id, 1)
  ON CONFLICT (post_id) DO UPDATE SET share_count = m.share_count + 1;
  RETURN NULL;
END
$$;
CREATE TRIGGER likes_count AFTER INSERT ON likes FOR EACH ROW EXECUTE FUNCTION count_like();
CREATE TRIGGER comments_count AFTER INSERT ON comments FOR EACH ROW EXECUTE FUNCTION count_comment();
CREATE TRIGGER comments_audit AFTER DELETE ON comments FOR EACH ROW EXECUTE FUNCTION count_comment();
ALTER TABLE comments DISABLE TRIGGER comments_audit;
CREATE TRIGGER post_shares_count AFTER INSERT ON post_shares FOR EACH ROW EXECUTE FUNCTION count_share();

INSERT INTO likes
SELECT 1 + n % 97, 1 + n / 97, timestamptz '2025-01-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(0, 2999) AS n;
INSERT INTO comments
SELECT n, 1 + n % 40, 1 + n % 97, 'Comment ' || n, timestamptz '2025-02-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 1500) AS n;
INSERT INTO post_shares
SELECT n, 1 + n % 40, 1 + n % 97, timestamptz '2025-03-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 500) AS n;

CREATE SCHEMA social;
CREATE TABLE social.likes (
  post_id  bigint NOT NULL,
  user_id  bigint NOT NULL,
  liked_at timestamptz NOT NULL,
  PRIMARY KEY (post_id, user_id)
);
CREATE TABLE social.comments (
  id           bigint PRIMARY KEY,
  post_id      bigint NOT NULL,
  author_id    bigint NOT NULL,
  text         text NOT NULL,
  commented_at timestamptz NOT NULL
);
CREATE TABLE social.shares (
  id        bigint PRIMARY KEY,
  post_id   bigint NOT NULL,
  user_id   bigint NOT NULL,
  shared_at timestamptz NOT NULL
);
CREATE TABLE social.post_counters (
  post_id  bigint PRIMARY KEY,
  likes    bigint NOT NULL,
  comments bigint NOT NULL,
  shares   bigint NOT NULL
);
INSERT INTO social.likes SELECT post_id, user_id, created_at FROM likes WHERE post_id <= 25;
INSERT INTO social.comments SELECT id, post_id, user_id, content, created_at FROM comments WHERE id <= 1200;
-- What came in over there since.
INSERT INTO social.likes
SELECT 500 + n, 1 + n % 97, timestamptz '2025-11-01 00:00:00+00' FROM generate_series(1, 100) AS n;

CREATE SCHEMA ops;
CREATE TABLE ops.backups (
  database    name NOT NULL,
  made_at     timestamptz NOT NULL,
  verified_at timestamptz -- when a restore of it was tried and held
);
INSERT INTO ops.backups VALUES (current_database(), now() - interval '2 hours', now() - interval '1 hour');
