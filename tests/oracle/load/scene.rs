//! The mappings that are watched under load: their schemas, their plans, and what is called what when.

/// Clients that write whatever they like have the rows of a group to themselves; the others share groups.
pub const GROUPS: u64 = 24;

/// Desks of each group, where rows refer to such.
pub const DESKS: u64 = 4;

/// Rows of one client who writes them under an old view: no other touches them. They are copied last.
pub const OWN: u64 = 1_000_000_000;

/// How many there are.
pub const OWN_ROWS: u64 = 24;

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To another table, one way, under a user's own trigger that writes each row again.
    TableForward,
    /// The same, of rows that pass a filter.
    Filtered,
    /// To another table, of rows that go and change with those that they refer to.
    Cascaded,
    /// From a partitioned table to a plain one.
    Partitioned,
    /// To another table and back.
    TableBoth,
    /// To another table and back, of rows that go and change with others.
    CascadedBoth,
    /// Text in place, one way.
    InPlaceForward,
    /// Text in place and back.
    InPlaceBoth,
    /// An integer that becomes a bigint in place and back; the columns change names.
    IntToBigint,
    /// A column that moves into another table, whose key is called otherwise and refers to the first.
    SplitEmail,
}

/// How far a plan has come, by the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Before,
    Retired,
    Dropped,
}

/// Which shape a client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Old,
    New,
}

/// What a client calls things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    pub table: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    /// Whether the rows have names there, and can be made anew.
    pub whole: bool,
}

const fn names(table: &'static str, value: &'static str) -> Names {
    Names { table, key: "id", value, whole: true }
}

/// What differs from plan to plan.
struct Words {
    into: &'static str,
    columns: &'static str,
    create: &'static str,
    undo: &'static str,
    retire: &'static str,
}

/// What some clients have in their search path before everything else, under names that the sync and the copy use.
const DECOYS: &str = "\
CREATE SCHEMA decoy; GRANT USAGE ON SCHEMA decoy TO PUBLIC;
CREATE FUNCTION decoy.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'decoy' $$;
CREATE FUNCTION decoy.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT 'DECOY' $$;
CREATE FUNCTION decoy.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'decoy' $$;
CREATE FUNCTION decoy.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'decoy' $$;
CREATE FUNCTION decoy.never(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
CREATE OPERATOR decoy.= (LEFTARG = text, RIGHTARG = text, FUNCTION = decoy.never);
";

/// What follows the copy, up to how the old shape is put aside.
const LATER_STEPS: &str = "  - id: compare
    phase: verify
    verify: { mapping: moved, method: full }
  - id: compare-at-rest
    phase: verify
    verify: { mapping: moved, method: full }
  - id: ready
    phase: contract
    gate:
      verified_within: 1h
  - id: retire
    phase: contract
    retire:
      mapping: moved
";

const LAST_STEPS: &str = "  - id: ready-to-drop
    phase: contract
    gate:
      verified_within: 1h
  - id: drop
    phase: contract
    drop: { mapping: moved }
    irreversible: every row lives on in the new shape
";

impl Kind {
    pub const fn is_both(self) -> bool {
        matches!(self, Self::TableBoth | Self::CascadedBoth | Self::InPlaceBoth | Self::IntToBigint)
    }

    pub const fn is_in_place(self) -> bool {
        matches!(self, Self::InPlaceForward | Self::InPlaceBoth | Self::IntToBigint)
    }

    /// Rows refer to others, and others to them.
    pub const fn is_cascaded(self) -> bool {
        matches!(self, Self::Cascaded | Self::CascadedBoth)
    }

    /// Whether a trigger of the user's writes rows again whose name asks for it.
    pub const fn answers(self) -> bool {
        matches!(self, Self::TableForward | Self::Filtered)
    }

    /// The new table has a column of its own, which stays with each row: one that leaves a filter, or goes to another partition, is
    /// deleted and made again.
    pub const fn is_labelled(self) -> bool {
        matches!(self, Self::TableForward | Self::TableBoth) || self.is_cascaded()
    }

    /// The table that clients of the old shape write first of all.
    const fn table(self) -> &'static str {
        if matches!(self, Self::SplitEmail) { "users" } else { "customers" }
    }

    /// The column that the mapping is about.
    pub const fn value(self) -> &'static str {
        match self {
            Self::IntToBigint => "amount",
            Self::SplitEmail => "email",
            _ => "status",
        }
    }

    /// Rows have an address of their own.
    pub const fn has_mail(self) -> bool {
        !matches!(self, Self::SplitEmail)
    }

    /// It is unique: of a partitioned table only the key can be.
    pub const fn has_unique_mail(self) -> bool {
        !matches!(self, Self::SplitEmail | Self::Partitioned)
    }

    /// Columns that are the same in the old table and in the new one, and what the twin calls what they refer to.
    const fn more_columns(self, is_twin: bool) -> &'static str {
        match (self, is_twin) {
            (Self::Cascaded | Self::CascadedBoth, false) => {
                ", desk bigint REFERENCES desks ON DELETE CASCADE ON UPDATE CASCADE"
            }
            (Self::Cascaded | Self::CascadedBoth, true) => {
                ", desk bigint REFERENCES twin_desks ON DELETE CASCADE ON UPDATE CASCADE"
            }
            _ => "",
        }
    }

    /// Tables with rows for four of five keys up to `keys`.
    pub fn schema(self, keys: u64) -> String {
        let (table, value) = (self.table(), self.value());
        let (typed, first) = match self {
            Self::IntToBigint => ("int", "(i * 7) % 1000"),
            Self::SplitEmail => ("text", "'Mail ' || i"),
            _ => (
                "text",
                "CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 'NEW 1' WHEN 2 THEN 'ACTIVE 2' ELSE 'CLOSED 3' END",
            ),
        };
        let unique = if self.has_unique_mail() { " UNIQUE" } else { "" };
        let (mail, mails) = if self.has_mail() {
            (format!(", email text{unique}"), ", 'first' || i")
        } else {
            (String::new(), "")
        };
        let columns = format!("id bigint PRIMARY KEY, name text NOT NULL{mail}, {value} {typed}");
        let (ours, twins) = (self.more_columns(false), self.more_columns(true));
        let (before, desk, partitions) = match self {
            Self::Cascaded | Self::CascadedBoth => (
                format!(
                    "CREATE TABLE desks (id bigint PRIMARY KEY); CREATE TABLE twin_desks (id bigint PRIMARY KEY);
                     INSERT INTO desks SELECT i FROM generate_series(1, {GROUPS} * {}) AS i;
                     INSERT INTO twin_desks SELECT id FROM desks;",
                    DESKS + 1
                ),
                format!(", CASE WHEN i % 3 > 0 THEN i % {GROUPS} + {GROUPS} * (1 + i / {GROUPS} % {DESKS}) END"),
                "",
            ),
            Self::Partitioned => (
                String::new(),
                String::new(),
                "CREATE TABLE customers_0 PARTITION OF customers FOR VALUES WITH (MODULUS 3, REMAINDER 0);
                 CREATE TABLE customers_1 PARTITION OF customers FOR VALUES WITH (MODULUS 3, REMAINDER 1);
                 CREATE TABLE customers_2 PARTITION OF customers FOR VALUES WITH (MODULUS 3, REMAINDER 2);",
            ),
            _ => (String::new(), String::new(), ""),
        };
        let parted = if self == Self::Partitioned { " PARTITION BY HASH (id)" } else { "" };
        let mut schema = format!(
            "{DECOYS}{before}
             CREATE TABLE {table} ({columns}{ours}){parted}; {partitions}
             CREATE TABLE twin ({columns}{twins}, own text);
             INSERT INTO {table} SELECT i, 'name ' || i{mails}, {first}{desk} FROM (
               SELECT i FROM generate_series(1::bigint, {keys}) AS i WHERE i % 5 > 0
               UNION ALL SELECT i FROM generate_series({OWN}, {OWN} + {OWN_ROWS} - 1::bigint) AS i) AS i (i);
             INSERT INTO twin SELECT * FROM {table};"
        );
        if self.conversion().is_some() {
            schema.push_str("CREATE TABLE twin_era AS SELECT false AS converted;");
        }
        if self == Self::SplitEmail {
            schema.push_str(
                "CREATE TABLE profiles (user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE,
                   bio text NOT NULL DEFAULT '');
                 INSERT INTO profiles SELECT id, 'about ' || name FROM users;",
            );
        }
        if self.is_cascaded() {
            for (orders, table) in [("orders", table), ("twin_orders", "twin")] {
                let made = format!(
                    "CREATE TABLE {orders} (id bigint PRIMARY KEY, customer bigint REFERENCES {table} ON DELETE CASCADE ON UPDATE CASCADE);
                     INSERT INTO {orders} SELECT row_number() OVER (PARTITION BY id % {GROUPS} ORDER BY id) * {GROUPS} + id % {GROUPS}, id
                       FROM {table} WHERE id % 7 = 0;"
                );
                schema.push_str(&made);
            }
        }
        if self.answers() {
            schema.push_str(
                "CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   EXECUTE format('UPDATE %s SET name = rtrim(name, ''?''), status = ''ASKED '' || length(name) WHERE id = $1',
                     TG_RELID::regclass) USING NEW.id;
                   RETURN NULL; END $$;
                 CREATE TRIGGER a_answer AFTER INSERT OR UPDATE ON customers FOR EACH ROW
                   WHEN (NEW.name LIKE '%?') EXECUTE FUNCTION answer();
                 CREATE TRIGGER a_answer AFTER INSERT OR UPDATE ON twin FOR EACH ROW
                   WHEN (NEW.name LIKE '%?') EXECUTE FUNCTION answer();",
            );
        }
        schema + "ANALYZE"
    }

    /// What the twin becomes when the new side takes the old one's place, as the beginning of a statement that ends with a
    /// condition: rows that the filter hides are only the old side's.
    pub const fn conversion(self) -> Option<&'static str> {
        match self {
            Self::Filtered => Some("DELETE FROM twin WHERE status LIKE 'CLOSED%'"),
            _ => None,
        }
    }

    /// All rows at once, as a client fills an emptied table again.
    pub fn refill(self, names: Names, shape: Shape, keys: u64) -> String {
        let value = match (self, shape) {
            (Self::IntToBigint, _) => "i",
            (_, Shape::Old) => "'AGAIN ' || i",
            (_, Shape::New) => "'again ' || i",
        };
        format!(
            "INSERT INTO {} (id, name, {}) SELECT i, 'again ' || i, {value}
             FROM generate_series(1, {keys}) AS i WHERE i % 3 = 0",
            names.table, names.value
        )
    }

    /// The plan. `held` is what holds the copy back, as keys of its step.
    pub fn plan(self, url: &str, chunk_rows: u32, held: &str) -> String {
        let Words { into, columns, create, undo, retire } = self.words();
        let filter = if self == Self::Filtered {
            "\n    where: status IS NULL OR status NOT LIKE 'CLOSED%'"
        } else {
            ""
        };
        let more = if self == Self::SplitEmail {
            "\n    copy: listed\n    on_existing: update\n    on_delete: nullify"
        } else {
            ""
        };
        // What a table can do, its successor must.
        let trigger = if self.answers() {
            "; CREATE TRIGGER a_answer AFTER INSERT OR UPDATE ON customers_v2 FOR EACH ROW WHEN (NEW.name LIKE '%?') EXECUTE FUNCTION answer()\n    reviewed: it writes the row that it fires for"
        } else {
            ""
        };
        let direction = if self.is_both() { "both" } else { "forward" };
        format!(
            "apiVersion: phasegate/v1
kind: Plan
metadata:
  name: load
targets:
  app:
    engine: postgres
    url: {url}
mappings:
  moved:
    from: {{ target: app, table: {from}, key: [id] }}
    into: {{ target: app, {into} }}{filter}{more}
    columns:
{columns}
steps:
  - id: create
    phase: expand
    target: app
    sql: {create}{trigger}
    undo:
      sql: {undo}
  - id: sync
    phase: dual-write
    dual_write: {{ mapping: moved, direction: {direction} }}
  - id: copy
    phase: backfill
    backfill:
      mapping: moved
      chunk: {{ rows: {chunk_rows} }}
      workers: 4
{held}    undo:
      none: what it fills is this plan's own
{LATER_STEPS}      {retire}
{LAST_STEPS}",
            from = self.table(),
        )
    }

    /// What a plan says of this mapping.
    const fn words(self) -> Words {
        match self {
            Self::TableForward | Self::Filtered => Words {
                into: "table: customers_v2",
                columns: "      status: lower(status)",
                create: "CREATE TABLE customers_v2 (id bigint PRIMARY KEY, name text NOT NULL, email text UNIQUE, status text, own text)",
                undo: "DROP TABLE customers_v2",
                retire: "old_name: customers_old\n      take_name: true",
            },
            Self::Cascaded => Words {
                into: "table: customers_v2",
                columns: "      status: lower(status)",
                create: "CREATE TABLE customers_v2 (id bigint PRIMARY KEY, name text NOT NULL, email text UNIQUE, status text, desk bigint REFERENCES desks ON DELETE CASCADE ON UPDATE CASCADE, own text)",
                undo: "DROP TABLE customers_v2",
                retire: "old_name: customers_old\n      take_name: true",
            },
            Self::CascadedBoth => Words {
                into: "table: customers_v2",
                columns: "      state: lower(status)\n    reverse:\n      status: upper(state)",
                create: "CREATE TABLE customers_v2 (id bigint PRIMARY KEY, name text NOT NULL, email text UNIQUE, state text, desk bigint REFERENCES desks ON DELETE CASCADE ON UPDATE CASCADE, own text)",
                undo: "DROP TABLE customers_v2",
                retire: "old_name: customers_old\n      take_name: true",
            },
            Self::InPlaceForward => Words {
                into: "table: customers",
                columns: "      status_v2: lower(status)",
                create: "ALTER TABLE customers ADD COLUMN status_v2 text",
                undo: "ALTER TABLE customers DROP COLUMN status_v2",
                retire: "columns:\n        status:\n          old_name: status_old\n          take_name: status_v2",
            },
            Self::Partitioned => Words {
                into: "table: customers_v2",
                columns: "      status: lower(status)",
                create: "CREATE TABLE customers_v2 (id bigint PRIMARY KEY, name text NOT NULL, email text, status text)",
                undo: "DROP TABLE customers_v2",
                retire: "old_name: customers_old\n      take_name: true",
            },
            Self::TableBoth => Words {
                into: "table: customers_v2",
                columns: "      state: lower(status)\n    reverse:\n      status: upper(state)",
                create: "CREATE TABLE customers_v2 (id bigint PRIMARY KEY, name text NOT NULL, email text UNIQUE, state text, own text)",
                undo: "DROP TABLE customers_v2",
                retire: "old_name: customers_old\n      take_name: true",
            },
            Self::InPlaceBoth => Words {
                into: "table: customers",
                columns: "      status_v2: lower(status)\n    reverse:\n      status: upper(status_v2)",
                create: "ALTER TABLE customers ADD COLUMN status_v2 text",
                undo: "ALTER TABLE customers DROP COLUMN status_v2",
                retire: "columns:\n        status:\n          old_name: status_old\n          take_name: status_v2",
            },
            Self::IntToBigint => Words {
                into: "table: customers",
                columns: "      amount_v2: amount\n    reverse:\n      amount: amount_v2::int",
                create: "ALTER TABLE customers ADD COLUMN amount_v2 bigint",
                undo: "ALTER TABLE customers DROP COLUMN amount_v2",
                retire: "columns:\n        amount:\n          old_name: amount_old\n          take_name: amount_v2",
            },
            Self::SplitEmail => Words {
                into: "table: profiles, key: [user_id]",
                columns: "      email: lower(email)",
                create: "ALTER TABLE profiles ADD COLUMN email text",
                undo: "ALTER TABLE profiles DROP COLUMN email",
                retire: "columns:\n        email:\n          old_name: email_old",
            },
        }
    }

    /// A query whose one row says whether the old shape is put aside, and whether it has its names still.
    pub const fn era_query(self) -> &'static str {
        match self {
            Self::TableForward
            | Self::Filtered
            | Self::Cascaded
            | Self::Partitioned
            | Self::CascadedBoth
            | Self::TableBoth => {
                "SELECT to_regclass('customers_old') IS NOT NULL, to_regclass('customers_v2') IS NOT NULL"
            }
            Self::InPlaceForward | Self::InPlaceBoth => {
                "SELECT coalesce(bool_or(attname = 'status_old'), false), coalesce(bool_or(attname = 'status_v2'), false)
                 FROM pg_attribute WHERE attrelid = 'customers'::regclass AND NOT attisdropped"
            }
            Self::IntToBigint => {
                "SELECT coalesce(bool_or(attname = 'amount_old'), false), coalesce(bool_or(attname = 'amount_v2'), false)
                 FROM pg_attribute WHERE attrelid = 'customers'::regclass AND NOT attisdropped"
            }
            Self::SplitEmail => {
                "SELECT coalesce(bool_or(attname = 'email_old'), false), coalesce(bool_or(attname = 'email'), false)
                 FROM pg_attribute WHERE attrelid = 'users'::regclass AND NOT attisdropped"
            }
        }
    }

    pub const fn names(self, shape: Shape, era: Era) -> Names {
        match (self, shape, era) {
            (Self::TableBoth | Self::CascadedBoth, Shape::Old, Era::Retired) => {
                names("customers_old", "status")
            }
            (Self::TableBoth | Self::CascadedBoth, Shape::New, Era::Before) => {
                names("customers_v2", "state")
            }
            (Self::TableBoth | Self::CascadedBoth, Shape::New, _)
            | (Self::TableBoth | Self::CascadedBoth, _, Era::Dropped) => {
                names("customers", "state")
            }
            (Self::InPlaceBoth, Shape::Old, Era::Retired) => names("customers", "status_old"),
            (Self::InPlaceBoth, Shape::New, Era::Before) => names("customers", "status_v2"),
            (Self::IntToBigint, Shape::Old, Era::Retired) => names("customers", "amount_old"),
            (Self::IntToBigint, Shape::New, Era::Before) => names("customers", "amount_v2"),
            (Self::IntToBigint, ..) => names("customers", "amount"),
            (Self::SplitEmail, _, Era::Before) => names("users", "email"),
            (Self::SplitEmail, ..) => {
                Names { table: "profiles", key: "user_id", value: "email", whole: false }
            }
            _ => names("customers", "status"),
        }
    }

    /// What the twin calls things.
    pub const fn twin(self) -> Names {
        names("twin", self.value())
    }

    /// A value as a shape writes it, so that each is made of the other.
    pub fn literal(self, shape: Shape, (word, number): (u64, u64)) -> String {
        if word == 0 {
            let typed = if self == Self::IntToBigint { "NULL::int" } else { "NULL" };
            return typed.to_owned();
        }
        let text = match word {
            1 => "New",
            2 => "Active",
            3 => "Closed",
            _ => "Paused",
        };
        match (self, shape) {
            (Self::IntToBigint, _) => (word * 1_000 + number).to_string(),
            (_, Shape::Old) => format!("'{} {number}'", text.to_uppercase()),
            (_, Shape::New) => format!("'{} {number}'", text.to_lowercase()),
        }
    }

    /// What the new side must be when it was compared, and what the twin makes of it.
    pub fn compared(self) -> (String, String) {
        let desk = if self.is_cascaded() { ", desk" } else { "" };
        let whole = |table: &str, value: &str| {
            format!("SELECT id, name, email, {value}{desk} FROM {table}")
        };
        match self {
            Self::TableForward | Self::Cascaded | Self::Partitioned => {
                (whole("customers_v2", "status"), whole("twin", "lower(status)"))
            }
            Self::Filtered => (
                whole("customers_v2", "status"),
                whole("twin", "lower(status)")
                    + " WHERE status IS NULL OR status NOT LIKE 'CLOSED%'",
            ),
            Self::TableBoth | Self::CascadedBoth => {
                (whole("customers_v2", "state"), whole("twin", "lower(status)"))
            }
            Self::InPlaceForward | Self::InPlaceBoth => {
                (whole("customers", "status_v2"), whole("twin", "lower(status)"))
            }
            Self::IntToBigint => (whole("customers", "amount_v2"), whole("twin", "amount")),
            Self::SplitEmail => (
                "SELECT user_id, email FROM profiles".to_owned(),
                "SELECT id, lower(email) FROM twin".to_owned(),
            ),
        }
    }

    /// The same of the old side, as long as it has its names.
    pub fn old_side(self) -> (String, String) {
        let mail = match self {
            Self::SplitEmail => "",
            Self::Cascaded | Self::CascadedBoth => ", email, desk",
            _ => ", email",
        };
        let of = |table: &str| format!("SELECT id, name{mail}, {} FROM {table}", self.value());
        let twin = of("twin");
        (of(self.table()), twin)
    }

    /// Tables beside it that are as the twin's, whatever becomes of the mapping.
    pub fn beside(self) -> Vec<(String, String)> {
        let tables: &[_] = match self {
            Self::Cascaded | Self::CascadedBoth => &["desks", "orders"],
            _ => &[],
        };
        let all = |name: &str| format!("SELECT * FROM {name}");
        tables.iter().map(|name| (all(name), all(&format!("twin_{name}")))).collect()
    }

    /// What somebody finds in each view who comes by the names of old, or by those that are left; and what the twin makes of it.
    pub fn by_name(self) -> Vec<(String, String)> {
        match self {
            Self::TableBoth | Self::CascadedBoth | Self::SplitEmail => {
                vec![self.old_side(), self.left()]
            }
            Self::InPlaceBoth => vec![Self::InPlaceForward.left()],
            Self::Filtered => {
                let (ours, twin) = self.left();
                // What is hidden is gone after `retire`, but stays in views from before it.
                let passes = " WHERE status IS NULL OR upper(status) NOT LIKE 'CLOSED%'";
                vec![(ours + passes, twin + passes)]
            }
            _ => vec![self.left()],
        }
    }

    /// That a constraint of this table is one of the table that a client writes, or of the other side's where both have it: which of them
    /// refuses first is a matter of the order in which triggers fire.
    pub fn is_part(self, names: Names, table: &str) -> bool {
        let is_partition = self == Self::Partitioned && table.starts_with("customers_");
        let is_beside = self.is_cascaded() && ["desks", "orders"].contains(&table);
        let is_mirrored = self == Self::CascadedBoth && table.starts_with("customers");
        table == names.table || is_beside || is_mirrored || is_partition && table != "customers_v2"
    }

    /// What is left in the end, and what the twin makes of it. With one way, clients of the old shape went on writing as
    /// they always did.
    pub fn left(self) -> (String, String) {
        let desk = if self.is_cascaded() { ", desk" } else { "" };
        let whole = |table: &str, value: &str| {
            format!("SELECT id, name, email, {value}{desk} FROM {table}")
        };
        match self {
            Self::TableForward
            | Self::Filtered
            | Self::Cascaded
            | Self::Partitioned
            | Self::InPlaceForward => {
                (whole("customers", "lower(status)"), whole("twin", "lower(status)"))
            }
            Self::TableBoth | Self::CascadedBoth => {
                (whole("customers", "state"), whole("twin", "lower(status)"))
            }
            Self::InPlaceBoth => (whole("customers", "status"), whole("twin", "lower(status)")),
            Self::IntToBigint => (whole("customers", "amount"), whole("twin", "amount")),
            Self::SplitEmail => (
                "SELECT user_id, lower(email), name FROM profiles FULL JOIN users ON id = user_id"
                    .to_owned(),
                "SELECT id, lower(email), name FROM twin".to_owned(),
            ),
        }
    }
}
