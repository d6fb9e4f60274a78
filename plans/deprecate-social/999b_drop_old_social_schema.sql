-- 999b: the social tables of migration 004 go. Without CASCADE: what depends on them and was overlooked stops this.
DROP TABLE likes;
DROP TABLE comments;
DROP TABLE post_shares;
DROP TABLE social_metadata;

-- The notes of what was brought over have done their work; the rows that they name stay.
DROP TABLE social.brought_counters;
DROP TABLE social.brought_shares;
DROP TABLE social.brought_comments;
DROP TABLE social.brought_likes;
