-- 999: the social tables of migration 004 are deprecated. Nothing is lost: they are marked, and their triggers do no more
-- work.
COMMENT ON TABLE likes IS 'DEPRECATED: social-service owns likes (social.likes)';
COMMENT ON TABLE comments IS 'DEPRECATED: social-service owns comments (social.comments)';
COMMENT ON TABLE post_shares IS 'DEPRECATED: social-service owns shares (social.shares)';
COMMENT ON TABLE social_metadata IS 'DEPRECATED: social-service counts (social.post_counters)';

ALTER TABLE likes DISABLE TRIGGER likes_count;
ALTER TABLE comments DISABLE TRIGGER comments_count;
ALTER TABLE post_shares DISABLE TRIGGER post_shares_count;
