-- What realtime-chat hasn't got yet. Its own rows stand: where both have a message, theirs is the newer one. What was
-- brought over is noted, so that the way back takes away just that.
CREATE TABLE chat.brought_rooms (id bigint PRIMARY KEY);
CREATE TABLE chat.brought_messages (id bigint PRIMARY KEY);

WITH brought AS (
  INSERT INTO chat.rooms (id, topic, created_at)
  SELECT id, coalesce(title, ''), created_at
  FROM conversations
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO chat.brought_rooms SELECT id FROM brought;

WITH brought AS (
  INSERT INTO chat.messages (id, room_id, author, text, sent_at)
  SELECT id, conversation_id, sender_id, body, sent_at
  FROM messages
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
INSERT INTO chat.brought_messages SELECT id FROM brought;
