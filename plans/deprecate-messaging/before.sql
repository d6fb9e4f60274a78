-- What plans/deprecate-messaging.yaml begins with: the messaging tables of migration 018, and those of realtime-chat, which
-- has taken over and copied most of what there was.
CREATE TABLE conversations (
  id         bigint PRIMARY KEY,
  title      text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE messages (
  id              bigint PRIMARY KEY,
  conversation_id bigint NOT NULL REFERENCES conversations,
  sender_id       bigint NOT NULL,
  body            text NOT NULL,
  sent_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX messages_conversation ON messages (conversation_id, sent_at);
COMMENT ON TABLE messages IS 'Direct messages';

CREATE FUNCTION touch_conversation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE conversations SET updated_at = now() WHERE id = NEW.conversation_id;
  RETURN NEW;
END
$$;
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;
CREATE TRIGGER conversations_updated_at BEFORE UPDATE ON conversations
  FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER messages_touch AFTER INSERT ON messages
  FOR EACH ROW EXECUTE FUNCTION touch_conversation();

INSERT INTO conversations
SELECT n, 'Conversation ' || n, timestamptz '2025-01-01 00:00:00+00' + n * interval '1 hour', timestamptz '2025-06-01 00:00:00+00'
FROM generate_series(1, 300) AS n;
INSERT INTO messages
SELECT n, 1 + n % 300, 1 + n % 50, 'Message ' || n, timestamptz '2025-01-02 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 4000) AS n;

CREATE SCHEMA chat;
CREATE TABLE chat.rooms (
  id         bigint PRIMARY KEY,
  topic      text NOT NULL,
  created_at timestamptz NOT NULL
);
CREATE TABLE chat.messages (
  id      bigint PRIMARY KEY,
  room_id bigint NOT NULL REFERENCES chat.rooms,
  author  bigint NOT NULL,
  text    text NOT NULL,
  sent_at timestamptz NOT NULL
);
INSERT INTO chat.rooms SELECT id, coalesce(title, ''), created_at FROM conversations WHERE id <= 280;
-- One of them was edited over there since; and there are messages that the old tables never had.
INSERT INTO chat.messages
SELECT id, conversation_id, sender_id, CASE id WHEN 42 THEN 'Message 42, edited' ELSE body END, sent_at
FROM messages WHERE id <= 3500 AND conversation_id <= 280;
INSERT INTO chat.messages
SELECT 100000 + n, 1 + n % 280, 1 + n % 50, 'New message ' || n, timestamptz '2025-11-01 00:00:00+00'
FROM generate_series(1, 200) AS n;

CREATE SCHEMA ops;
CREATE TABLE ops.backups (
  database    name NOT NULL,
  made_at     timestamptz NOT NULL,
  verified_at timestamptz -- when a restore of it was tried and held
);
INSERT INTO ops.backups VALUES (current_database(), now() - interval '2 hours', now() - interval '1 hour');
