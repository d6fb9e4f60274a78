-- As another tool wrote it.
BEGIN;

CREATE TABLE leads_v2 (LIKE crm."Leads" INCLUDING ALL);
ALTER TABLE leads_v2 ADD COLUMN status_code text;

COMMIT;
