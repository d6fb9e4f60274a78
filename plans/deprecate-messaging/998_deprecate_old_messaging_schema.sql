-- 998: the old messaging tables are deprecated. Nothing is lost: they are marked, and their triggers do no more work.
COMMENT ON TABLE conversations IS 'DEPRECATED: realtime-chat owns conversations (chat.rooms)';
COMMENT ON TABLE messages IS 'DEPRECATED: realtime-chat owns messages (chat.messages)';

ALTER TABLE conversations DISABLE TRIGGER conversations_updated_at;
ALTER TABLE messages DISABLE TRIGGER messages_touch;
