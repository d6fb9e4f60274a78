-- Back: what was brought over goes, and nothing else.
DELETE FROM social.likes WHERE (post_id, user_id) IN (SELECT post_id, user_id FROM social.brought_likes);
DELETE FROM social.comments WHERE id IN (SELECT id FROM social.brought_comments);
DELETE FROM social.shares WHERE id IN (SELECT id FROM social.brought_shares);
DELETE FROM social.post_counters WHERE post_id IN (SELECT post_id FROM social.brought_counters);

DROP TABLE social.brought_counters;
DROP TABLE social.brought_shares;
DROP TABLE social.brought_comments;
DROP TABLE social.brought_likes;
