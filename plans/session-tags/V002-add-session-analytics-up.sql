-- Add analytics tables
CREATE TABLE session_analytics (
  day      DATE NOT NULL,
  tag      TEXT NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (day, tag)
);

-- Sessions without tags count as such. Needs V001: the column is read
INSERT INTO session_analytics (day, tag, sessions)
SELECT (s.started_at AT TIME ZONE 'UTC')::date, t.tag, count(*)
FROM archived_sessions s
CROSS JOIN unnest(coalesce(s.tags, '{untagged}')) AS t (tag)
GROUP BY 1, 2;

COMMENT ON TABLE session_analytics IS 'Sessions per day and tag';
