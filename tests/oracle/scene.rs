//! The four kinds of mapping that an oracle watches: their plans, their schemas, and which names are right when.

/// Which way a mapping is kept in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Forward,
    Both,
}

/// A kind of mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    pub in_place: bool,
    pub direction: Way,
}

/// What the schema says of how far a plan has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// The old shape has its names.
    Before,
    /// The old shape is put aside.
    Retired,
    /// It is gone.
    Dropped,
}

/// A table and the column in it that the mapping is about, as a statement names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    pub table: &'static str,
    pub status: &'static str,
}

const fn names(table: &'static str, status: &'static str) -> Names {
    Names { table, status }
}

pub const TWIN: Names = names("twin", "status");

const COLUMNS: &str = "id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, email TEXT UNIQUE";

impl Scene {
    pub fn schema(self, journal: &str) -> String {
        // What the new shape adds is in the twin from the beginning, and empty until `retire`.
        let more =
            if self.in_place || self.direction == Way::Both { "" } else { ", status_code TEXT" };
        format!(
            "PRAGMA journal_mode = {journal};
             CREATE TABLE customers ({COLUMNS}, status TEXT);
             CREATE INDEX customers_status ON customers (status);
             CREATE TABLE twin ({COLUMNS}, status TEXT{more});
             CREATE TABLE twin_era (converted INTEGER);
             INSERT INTO twin_era VALUES (0);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
             INSERT INTO customers SELECT i * 3, 'customer ' || i, 'mail' || i,
               CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'NEW' WHEN 2 THEN 'ACTIVE' ELSE 'CLOSED' END FROM n;
             DELETE FROM customers WHERE id = 3600;
             INSERT INTO twin (id, name, email, status) SELECT * FROM customers;
             UPDATE sqlite_sequence SET seq = 3600;"
        )
    }

    pub fn plan(self) -> String {
        let (into, columns, create, undo, retire) = match (self.in_place, self.direction) {
            (false, Way::Forward) => (
                "customers_v2",
                "status_code: lower(status)",
                format!(
                    "CREATE TABLE customers_v2 ({COLUMNS}, status TEXT, status_code TEXT);
      CREATE INDEX customers_v2_status ON customers_v2 (status)"
                ),
                "DROP TABLE customers_v2",
                "      old_name: customers_old\n      take_name: true",
            ),
            (false, Way::Both) => (
                "customers_v2",
                "state: lower(status)\n    reverse:\n      status: upper(state)",
                format!(
                    "CREATE TABLE customers_v2 ({COLUMNS}, state TEXT);
      CREATE INDEX customers_v2_state ON customers_v2 (state)"
                ),
                "DROP TABLE customers_v2",
                "      old_name: customers_old\n      take_name: true",
            ),
            (true, direction) => (
                "customers",
                if direction == Way::Both {
                    "status_v2: lower(status)\n    reverse:\n      status: upper(status_v2)"
                } else {
                    "status_v2: lower(status)"
                },
                "ALTER TABLE customers ADD COLUMN status_v2 TEXT;
      CREATE INDEX customers_status_v2 ON customers (status_v2)"
                    .to_owned(),
                "DROP INDEX customers_status_v2; ALTER TABLE customers DROP COLUMN status_v2",
                "      columns:\n        status:\n          old_name: status_old\n          take_name: status_v2",
            ),
        };
        let direction = if self.direction == Way::Both { "both" } else { "forward" };
        format!(
            "apiVersion: phasegate/v1
kind: Plan
metadata:
  name: customers
targets:
  app:
    engine: sqlite
    url: sqlite://app.db
mappings:
  customers:
    from: {{ target: app, table: customers, key: [id] }}
    into: {{ target: app, table: {into} }}
    columns:
      {columns}
steps:
  - id: create
    phase: expand
    target: app
    sql: |
      {create};
    undo:
      sql: {undo}
  - id: sync
    phase: dual-write
    dual_write: {{ mapping: customers, direction: {direction} }}
  - id: copy
    phase: backfill
    backfill:
      mapping: customers
      chunk: {{ rows: 60 }}
  - id: compare
    phase: verify
    verify: {{ mapping: customers, method: full }}
  - id: ready
    phase: contract
    gate:
      verified_within: 1h
  - id: retire
    phase: contract
    retire:
      mapping: customers
{retire}
  - id: ready-to-drop
    phase: contract
    gate:
      verified_within: 1h
  - id: drop
    phase: contract
    drop: {{ mapping: customers }}
    irreversible: every row lives on in the new shape
"
        )
    }

    /// A query whose one row says whether the old shape is put aside, and whether the new one is beside the old one.
    pub const fn era_query(self) -> &'static str {
        if self.in_place {
            "SELECT coalesce(max(name = 'status_old'), 0), coalesce(max(name = 'status_v2'), 0)
             FROM pragma_table_info('customers')"
        } else {
            "SELECT coalesce(max(name = 'customers_old'), 0), coalesce(max(name = 'customers_v2'), 0)
             FROM sqlite_master WHERE type = 'table'"
        }
    }

    /// What an application of the old shape calls things.
    pub const fn old(self, era: Era) -> Names {
        match (self.direction, era) {
            // Nothing changed for it: the new table takes the old one's statements.
            (Way::Forward, _) | (Way::Both, Era::Before) => names("customers", "status"),
            (Way::Both, Era::Retired) if self.in_place => names("customers", "status_old"),
            (Way::Both, Era::Retired) => names("customers_old", "status"),
            (Way::Both, Era::Dropped) => self.new_names(era),
        }
    }

    /// What an application of the new shape calls things.
    pub const fn new_names(self, era: Era) -> Names {
        match (self.in_place, era) {
            (true, Era::Before) => names("customers", "status_v2"),
            (true, _) => names("customers", "status"),
            (false, Era::Before) => names("customers_v2", "state"),
            (false, _) => names("customers", "state"),
        }
    }

    /// What `retire` does to the twin: forward, nothing follows the old columns from then on.
    pub const fn conversion(self) -> Option<&'static str> {
        match (self.direction, self.in_place) {
            (Way::Both, _) => None,
            (Way::Forward, true) => Some("UPDATE twin SET status = lower(status)"),
            (Way::Forward, false) => Some("UPDATE twin SET status_code = lower(status)"),
        }
    }

    /// How the words of the old shape, which the twin has, are written.
    pub fn cased_in_twin(self) -> fn(&str) -> String {
        match self.direction {
            Way::Forward => str::to_owned,
            Way::Both => str::to_uppercase,
        }
    }

    /// The columns that are equal in the end: of the table and of the twin.
    pub const fn compared(self) -> (&'static str, &'static str) {
        match (self.direction, self.in_place) {
            (Way::Forward, true) => ("id, name, email, status", "id, name, email, status"),
            (Way::Forward, false) => {
                ("id, name, email, status, status_code", "id, name, email, status, status_code")
            }
            (Way::Both, true) => ("id, name, email, status", "id, name, email, lower(status)"),
            (Way::Both, false) => ("id, name, email, state", "id, name, email, lower(status)"),
        }
    }
}
