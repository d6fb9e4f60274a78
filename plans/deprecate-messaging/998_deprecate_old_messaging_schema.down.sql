-- 998, back: the triggers work again, and the marks are gone.
ALTER TABLE messages ENABLE TRIGGER messages_touch;
ALTER TABLE conversations ENABLE TRIGGER conversations_updated_at;

COMMENT ON TABLE messages IS 'Direct messages';
COMMENT ON TABLE conversations IS NULL;
