-- What the social-service hasn't got yet. Its own rows stand. What was brought over is noted, so that the way back takes
-- away just that.
CREATE TABLE social.brought_likes (post_id bigint, user_id bigint, PRIMARY KEY (post_id, user_id));
CREATE TABLE social.brought_comments (id bigint PRIMARY KEY);
CREATE TABLE social.brought_shares (id bigint PRIMARY KEY);
CREATE TABLE social.brought_counters (post_id bigint PRIMARY KEY);

WITH brought AS (
  INSERT INTO social.likes (post_id, user_id, liked_at)
  SELECT post_id, user_id, created_at FROM likes
  ON CONFLICT (post_id, user_id) DO NOTHING
  RETURNING post_id, user_id
)
INSERT INTO social.brought_likes SELECT post_id, user_id FROM brought;

WITH brought AS (
  INSERT INTO social.comments (id, post_id, author_id, text, commented_at)
  SELECT id, post_id, user_id, content, created_at FROM comments
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO social.brought_comments SELECT id FROM brought;

WITH brought AS (
  INSERT INTO social.shares (id, post_id, user_id, shared_at)
  SELECT id, post_id, user_id, created_at FROM post_shares
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO social.brought_shares SELECT id FROM brought;

WITH brought AS (
  INSERT INTO social.post_counters (post_id, likes, comments, shares)
  SELECT post_id, like_count, comment_count, share_count FROM social_metadata
  ON CONFLICT (post_id) DO NOTHING
  RETURNING post_id
)
INSERT INTO social.brought_counters SELECT post_id FROM brought;
