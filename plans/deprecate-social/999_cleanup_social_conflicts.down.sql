-- 999, back: the triggers that it disabled work again, and the marks are gone.
ALTER TABLE post_shares ENABLE TRIGGER post_shares_count;
ALTER TABLE comments ENABLE TRIGGER comments_count;
ALTER TABLE likes ENABLE TRIGGER likes_count;

COMMENT ON TABLE social_metadata IS NULL;
COMMENT ON TABLE post_shares IS NULL;
COMMENT ON TABLE comments IS NULL;
COMMENT ON TABLE likes IS NULL;
