-- 998b: the old messaging tables go. Without CASCADE: what depends on them and was overlooked stops this.
DROP TABLE messages;
DROP TABLE conversations;

-- The notes of what was brought over have done their work; the rows that they name stay.
DROP TABLE chat.brought_messages;
DROP TABLE chat.brought_rooms;
