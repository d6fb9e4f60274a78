-- Rollback: Remove analytics tables
DROP TABLE IF EXISTS session_analytics;
