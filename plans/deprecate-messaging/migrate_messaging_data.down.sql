-- Back: what was brought over goes, and nothing else. A room in which somebody has written since stays in the way, and
-- says so by its foreign key: then the rollback stops, and nothing is lost.
DELETE FROM chat.messages WHERE id IN (SELECT id FROM chat.brought_messages);
DELETE FROM chat.rooms WHERE id IN (SELECT id FROM chat.brought_rooms);

DROP TABLE chat.brought_messages;
DROP TABLE chat.brought_rooms;
