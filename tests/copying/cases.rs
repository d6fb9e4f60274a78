//! What is moved: a table each, with its key, its values by a number, and what becomes of it.

use super::Kind;

/// A table, of which every row follows from a number `x`. Beside the columns given here each has `v text` and `n int`.
pub struct Case {
    pub id: &'static str,
    /// Its schema, where it isn't `public`, and its name.
    pub schema: &'static str,
    pub name: &'static str,
    pub key: &'static [&'static str],
    /// Definitions and names of its columns.
    pub columns: &'static str,
    pub list: &'static str,
    /// Their values over `x`.
    pub values: &'static str,
    /// What follows the definition, and what is made after it, `{t}` standing for the table.
    pub tail: &'static str,
    /// How the new table is made, `{new}` and `{t}` standing for both; nothing: like the old one.
    pub create: &'static str,
    /// Further lines of the mapping.
    pub mapping: &'static str,
    /// Its key, list and values once it was moved, where they are others. No values: it is not written to any more.
    pub after: Option<(&'static [&'static str], &'static str, &'static str)>,
    /// What of the twin must be what of the table, with `v` and `n`; nothing: the list.
    pub seen: Option<(&'static str, &'static str)>,
    /// What of the twin's rows the mapping is about.
    pub filter: &'static str,
    /// Whether its key can be given and changed by hand.
    pub is_free: bool,
    /// Further lines of the mapping where clients of both tables are followed.
    pub reverse: &'static str,
    /// In place: what `n` becomes, its value, and `n` again over that value.
    pub wide: (&'static str, &'static str, &'static str),
}

const PLAIN: Case = Case {
    id: "",
    schema: "",
    name: "",
    key: &["id"],
    columns: "id bigint",
    list: "id",
    values: "x",
    tail: "",
    create: "",
    mapping: "",
    after: None,
    seen: None,
    filter: "",
    is_free: true,
    reverse: "",
    wide: ("bigint", "n", "n_wide"),
};

/// A column of another type in place, which nobody writes to as before once it has the name.
const fn turned(id: &'static str, wide: (&'static str, &'static str, &'static str)) -> Case {
    Case { id, name: id, after: Some((&["id"], "id", "")), wide, ..PLAIN }
}

const fn one(name: &'static str, columns: &'static str, values: &'static str) -> Case {
    Case { id: name, name, key: &["k"], columns, list: "k", values, ..PLAIN }
}

pub const KEYS: &[Case] = &[
    Case { id: "plain", name: "plain", ..PLAIN },
    Case {
        id: "pair",
        name: "pair",
        key: &["a", "b"],
        columns: "a bigint, b text",
        list: "a, b",
        values: "x / 10, 'b' || x",
        ..PLAIN
    },
    one("uid", "k uuid", "md5(x::text)::uuid"),
    one("icu", "k text COLLATE \"und-x-icu\"", "CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x"),
    one("alike", "k text COLLATE folded", "CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x"),
    one("ci", "k citext", "CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x"),
    one("bytes", "k bytea", "decode(md5(x::text), 'hex')"),
    one(
        "digits",
        "k numeric",
        "CASE WHEN x % 97 = 0 THEN 'NaN' WHEN x % 2 = 0 THEN x + 0.0 ELSE x + 0.00 END",
    ),
    one(
        "moment",
        "k timestamptz",
        "CASE x % 97 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity'
         ELSE timestamptz '1800-01-01' + x * interval '77 days 1.000001 s' END",
    ),
    one(
        "day",
        "k date",
        "CASE WHEN x % 97 = 0 THEN 'infinity' ELSE date '2000-01-01' + x::int END",
    ),
    Case {
        id: "moods",
        name: "moods",
        key: &["k", "j"],
        columns: "k mood, j int",
        list: "k, j",
        values: "(ARRAY['sad', 'glad', 'mad']::mood[])[1 + x % 3], x",
        ..PLAIN
    },
    one("padded", "k char(12)", "'k' || x"),
    Case {
        id: "reserved",
        name: "Order",
        key: &["Select", "Größe"],
        columns: "\"Select\" int, \"Größe\" varchar(40)",
        list: "\"Select\", \"Größe\"",
        values: "x % 7, 'ü''\"' || x",
        ..PLAIN
    },
    Case {
        id: "long",
        name: "a_name_of_sixty_three_bytes_which_is_all_that_postgresql_takes_",
        key: &["a_column_of_sixty_three_bytes_which_is_all_that_it_takes_as_wel"],
        columns: "a_column_of_sixty_three_bytes_which_is_all_that_it_takes_as_wel date",
        list: "a_column_of_sixty_three_bytes_which_is_all_that_it_takes_as_wel",
        values: "date '2000-01-01' + x::int",
        ..PLAIN
    },
    Case {
        id: "unicode",
        name: "Straße_表",
        key: &["ключ"],
        columns: "\"ключ\" bigint",
        list: "\"ключ\"",
        ..PLAIN
    },
    Case {
        id: "odd",
        name: "we.ird \"one\"",
        key: &["k.e\"y"],
        columns: "\"k.e\"\"y\" bigint",
        list: "\"k.e\"\"y\"",
        ..PLAIN
    },
    Case { id: "elsewhere", schema: "Else.Where", name: "tab.le", ..PLAIN },
];

pub const SHAPES: &[Case] = &[
    Case {
        id: "widened",
        name: "widened",
        columns: "id int, m int",
        list: "id, m",
        values: "x, x",
        create: "CREATE TABLE {new} (id bigint PRIMARY KEY, m bigint, v text, n bigint)",
        ..PLAIN
    },
    Case {
        id: "enumerated",
        name: "enumerated",
        columns: "id int, m text",
        list: "id, m",
        values: "x, (ARRAY['sad', 'glad', 'mad'])[1 + x % 3]",
        create: "CREATE TABLE {new} (id int PRIMARY KEY, m mood, v text, n int)",
        mapping: "      m: m::mood\n",
        after: Some((&["id"], "id, m", "x, (ARRAY['sad', 'glad', 'mad']::mood[])[1 + x % 3]")),
        seen: Some(("id, m::mood", "id, m")),
        ..PLAIN
    },
    Case {
        id: "dated",
        name: "dated",
        columns: "id int, m text",
        list: "id, m",
        values: "x, to_char(timestamp '2020-01-01' + x * interval '1 hour', 'YYYY-MM-DD HH24:MI:SS')",
        create: "CREATE TABLE {new} (id int PRIMARY KEY, m timestamptz, v text, n int)",
        mapping: "      m: m::timestamp AT TIME ZONE 'Europe/Berlin'\n",
        after: Some((
            &["id"],
            "id, m",
            "x, (timestamp '2020-01-01' + x * interval '1 hour') AT TIME ZONE 'Europe/Berlin'",
        )),
        seen: Some(("id, m::timestamp AT TIME ZONE 'Europe/Berlin'", "id, m")),
        ..PLAIN
    },
    Case {
        id: "renamed",
        name: "renamed",
        columns: "id int, m text, gone text",
        list: "id, m, gone",
        values: "x, 'M' || x, 'g'",
        create: "CREATE TABLE {new} (num int PRIMARY KEY, word text NOT NULL DEFAULT '', v text, n int)",
        mapping: "      word: lower(m)\n",
        after: Some((&["num"], "num, word", "x, 'm' || x")),
        seen: Some(("id, lower(m)", "num, word")),
        ..PLAIN
    },
    Case {
        id: "filtered",
        name: "filtered",
        mapping: "    where: n % 3 <> 0\n",
        after: Some((&["id"], "id", "")),
        filter: "n % 3 <> 0",
        ..PLAIN
    },
    Case {
        id: "ranged",
        name: "ranged",
        key: &["day", "id"],
        columns: "day date, id bigint",
        list: "day, id",
        values: "date '2024-01-01' + (x % 60)::int, x",
        tail: "PARTITION BY RANGE (day);
            CREATE TABLE ranged_1 PARTITION OF {t} FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
            CREATE TABLE ranged_2 PARTITION OF {t} DEFAULT",
        create: "CREATE TABLE {new} (day date, id bigint, v text, n int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
      CREATE TABLE ranged_v2_1 PARTITION OF {new} FOR VALUES FROM ('2024-01-01') TO ('2024-01-15');
      CREATE TABLE ranged_v2_2 PARTITION OF {new} DEFAULT",
        ..PLAIN
    },
    Case {
        id: "hashed",
        name: "hashed",
        key: &["c", "id"],
        columns: "c text, id bigint",
        list: "c, id",
        values: "(ARRAY['a', 'b', 'c'])[1 + x % 3], x",
        tail: "PARTITION BY LIST (c); CREATE TABLE hashed_1 PARTITION OF {t} FOR VALUES IN ('a');
            CREATE TABLE hashed_2 PARTITION OF {t} DEFAULT",
        create: "CREATE TABLE {new} (c text, id bigint, v text, n int, PRIMARY KEY (c, id)) PARTITION BY HASH (id);
      CREATE TABLE hashed_v2_1 PARTITION OF {new} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
      CREATE TABLE hashed_v2_2 PARTITION OF {new} FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        ..PLAIN
    },
    Case {
        id: "listed",
        name: "listed",
        key: &["c", "id"],
        columns: "c text, id bigint",
        list: "c, id",
        values: "(ARRAY['a', 'b', 'c'])[1 + x % 3], x",
        create: "CREATE TABLE {new} (c text, id bigint, v text, n int, PRIMARY KEY (c, id)) PARTITION BY LIST (c);
      CREATE TABLE listed_v2_1 PARTITION OF {new} FOR VALUES IN ('a');
      CREATE TABLE listed_v2_2 PARTITION OF {new} DEFAULT",
        ..PLAIN
    },
    Case {
        id: "joined",
        name: "joined",
        tail: "PARTITION BY HASH (id);
            CREATE TABLE joined_1 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE joined_2 PARTITION OF {t} FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        create: "CREATE TABLE {new} (id bigint PRIMARY KEY, v text, n int)",
        ..PLAIN
    },
    Case {
        id: "always",
        name: "always",
        columns: "id bigint GENERATED ALWAYS AS IDENTITY, w int GENERATED ALWAYS AS (n * 2) STORED",
        seen: Some(("id, n * 2", "id, w")),
        is_free: false,
        ..PLAIN
    },
    Case {
        id: "bydefault",
        name: "bydefault",
        columns: "id int GENERATED BY DEFAULT AS IDENTITY",
        ..PLAIN
    },
    Case { id: "serial", name: "serial", columns: "id bigserial", ..PLAIN },
    Case {
        id: "large",
        name: "large",
        columns: "id bigint, doc text, raw bytea",
        list: "id, doc, raw",
        values: "x, repeat(md5(x::text), CASE WHEN x % 150 = 0 THEN 32768 ELSE 100 END),
            decode(repeat(md5(x::text), 200), 'hex')",
        ..PLAIN
    },
];

/// Those of them that have a way back.
pub const FOLLOWED_SHAPES: &[Case] = &[
    Case { ..SHAPES[0] },
    Case { reverse: "    reverse:\n      m: m::text\n", ..SHAPES[1] },
    Case {
        reverse: "    reverse:\n      m: to_char(m AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD HH24:MI:SS')\n",
        ..SHAPES[2]
    },
    Case {
        id: "renamed",
        name: "renamed",
        columns: "id int, m text",
        list: "id, m",
        values: "x, 'M' || x",
        create: "CREATE TABLE {new} (num int PRIMARY KEY, word text NOT NULL DEFAULT '', v text, n int)",
        mapping: "      word: lower(m)\n",
        reverse: "    reverse:\n      m: upper(word)\n",
        after: Some((&["num"], "num, word", "x, 'm' || x")),
        seen: Some(("id, lower(m)", "num, word")),
        ..PLAIN
    },
    Case { ..SHAPES[5] },
    Case { ..SHAPES[6] },
    Case { ..SHAPES[7] },
    Case { ..SHAPES[8] },
    Case { ..SHAPES[9] },
    Case { ..SHAPES[10] },
    Case { ..SHAPES[11] },
    Case { ..SHAPES[12] },
];

pub const IN_PLACE: &[Case] = &[
    Case { id: "plain", name: "plain", ..PLAIN },
    Case {
        id: "pair",
        name: "pair",
        key: &["a", "b"],
        columns: "a int, b int",
        list: "a, b",
        values: "x / 10, x",
        ..PLAIN
    },
    one("uid", "k uuid", "md5(x::text)::uuid"),
    one("alike", "k text COLLATE folded", "CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x"),
    one(
        "digits",
        "k numeric",
        "CASE WHEN x % 97 = 0 THEN 'NaN' WHEN x % 2 = 0 THEN x + 0.0 ELSE x + 0.00 END",
    ),
    Case { id: "elsewhere", schema: "Else.Where", name: "tab.le", ..PLAIN },
    Case {
        id: "parted",
        name: "parted",
        key: &["day", "id"],
        columns: "day date, id bigint",
        list: "day, id",
        values: "date '2024-01-01' + (x % 60)::int, x",
        tail: "PARTITION BY RANGE (day);
            CREATE TABLE parted_1 PARTITION OF {t} FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
            CREATE TABLE parted_2 PARTITION OF {t} DEFAULT",
        ..PLAIN
    },
    Case {
        id: "bydefault",
        name: "bydefault",
        columns: "id int GENERATED BY DEFAULT AS IDENTITY",
        ..PLAIN
    },
    Case {
        id: "always",
        name: "always",
        columns: "id bigint GENERATED ALWAYS AS IDENTITY, w int GENERATED ALWAYS AS (length(v)) STORED",
        seen: Some(("id, length(v)", "id, w")),
        is_free: false,
        ..PLAIN
    },
    Case { id: "serial", name: "serial", columns: "id bigserial", ..PLAIN },
    Case {
        id: "large",
        name: "large",
        columns: "id bigint, doc text, raw bytea",
        list: "id, doc, raw",
        values: "x, repeat(md5(x::text), CASE WHEN x % 150 = 0 THEN 32768 ELSE 100 END),
            decode(repeat(md5(x::text), 200), 'hex')",
        ..PLAIN
    },
    turned("spelled", ("text", "'n' || n", "substr(n_wide, 2)::int")),
    turned(
        "dated",
        (
            "timestamptz",
            "timestamptz '2020-01-01 00:00:00Z' + n * interval '1 hour'",
            "(extract(epoch FROM n_wide - timestamptz '2020-01-01 00:00:00Z') / 3600)::int",
        ),
    ),
    turned("exact", ("numeric(20, 3)", "n", "n_wide::int")),
    // Two values, so that the way back gives the same: all that is asked of it is that old-shape clients' writes stand.
    turned("enumerated", ("mood", "CASE n % 2 WHEN 0 THEN 'sad'::mood ELSE 'glad' END", "")),
];

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name as a plan writes it.
fn written(schema: &str, name: &str) -> String {
    let part = |part: &str| if part.contains(['.', '"']) { quote(part) } else { part.to_owned() };
    let name =
        if schema.is_empty() { part(name) } else { format!("{}.{}", part(schema), part(name)) };
    format!("'{}'", name.replace('\'', "''"))
}

impl Case {
    fn sql(&self, name: &str) -> String {
        if self.schema.is_empty() {
            quote(name)
        } else {
            format!("{}.{}", quote(self.schema), quote(name))
        }
    }

    pub fn table(&self) -> String {
        self.sql(self.name)
    }

    pub fn twin(&self) -> String {
        format!("kept.{}", quote(self.id))
    }

    fn new_name(&self) -> String {
        let kept: String = self.name.chars().take(55).collect();
        format!("{kept}_v2")
    }

    fn key_list(&self) -> String {
        self.key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
    }

    /// Makes the table and its twin, with rows from 1 on.
    pub fn setup(&self, rows: u32) -> String {
        let (table, twin, key) = (self.table(), self.twin(), self.key_list());
        let Self { columns, list, values, .. } = self;
        // A twin's keys are given to it, and it computes nothing.
        let plain = columns
            .split(", w int GENERATED")
            .next()
            .unwrap()
            .replace("GENERATED ALWAYS AS IDENTITY", "")
            .replace("GENERATED BY DEFAULT AS IDENTITY", "")
            .replace("bigserial", "bigint");
        let tail = self.tail.replace("{t}", &table);
        let draws = if columns.contains("serial") || columns.contains("IDENTITY") {
            format!("SELECT setval(pg_get_serial_sequence('{}', 'id'), 700000);", self.name)
        } else {
            String::new()
        };
        format!(
            "CREATE TABLE {table} ({columns}, v text, n int, PRIMARY KEY ({key})) {tail};
             CREATE TABLE {twin} ({plain}, v text, n int, PRIMARY KEY ({key}));
             INSERT INTO {twin} ({list}, v, n) SELECT {values}, 'V' || x, x FROM generate_series(1, {rows}) AS x
                ON CONFLICT DO NOTHING;
             INSERT INTO {table} ({list}, v, n) OVERRIDING SYSTEM VALUE SELECT {list}, v, n FROM {twin}; {draws}\n"
        )
    }

    pub fn mapping(&self, kind: Kind) -> String {
        let key: Vec<String> =
            self.key.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
        let from = written(self.schema, self.name);
        let mut text = format!(
            "  {}:\n    from: {{ target: app, table: {from}, key: [{}] }}\n",
            self.id,
            key.join(", ")
        );
        let more = match kind {
            Kind::InPlace { both } => {
                let (_, value, back) = self.wide;
                let back = if both && !back.is_empty() {
                    format!("    reverse:\n      n: {back}\n")
                } else {
                    String::new()
                };
                format!(
                    "    into: {{ target: app, table: {from} }}\n    columns:\n      n_wide: \"{value}\"\n{back}"
                )
            }
            Kind::Tables { both } => {
                let into = written(self.schema, &self.new_name());
                let key = match self.after {
                    Some((key, ..)) if key != self.key => format!(", key: [{}]", key.join(", ")),
                    _ => String::new(),
                };
                let head = if self.mapping.starts_with("      ") { "    columns:\n" } else { "" };
                let reverse = if both { self.reverse } else { "" };
                format!(
                    "    into: {{ target: app, table: {into}{key} }}\n{head}{}{reverse}",
                    self.mapping
                )
            }
        };
        text.push_str(&more);
        text
    }

    pub fn expand(&self, kind: Kind) -> String {
        let (table, new) = (self.table(), self.sql(&self.new_name()));
        let (sql, undo) = match kind {
            Kind::InPlace { .. } => (
                format!("ALTER TABLE {table} ADD COLUMN n_wide {}", self.wide.0),
                format!("ALTER TABLE {table} DROP COLUMN n_wide"),
            ),
            Kind::Tables { .. } if self.create.is_empty() => (
                format!("CREATE TABLE {new} (LIKE {table} INCLUDING ALL)"),
                format!("DROP TABLE {new}"),
            ),
            Kind::Tables { .. } => {
                (self.create.replace("{new}", &new), format!("DROP TABLE {new}"))
            }
        };
        format!(
            "  - id: make-{}\n    phase: expand\n    target: app\n    sql: |\n      {sql}\n    undo:\n      sql: |\n        {undo}\n",
            self.id
        )
    }

    pub fn retire(&self, kind: Kind) -> String {
        let retire = match kind {
            Kind::InPlace { .. } => {
                "columns: { n: { old_name: n_old, take_name: n_wide } }".to_owned()
            }
            Kind::Tables { .. } => {
                let aside = self.new_name().replace("_v2", "_old");
                format!("old_name: {}, take_name: true", written("", &aside))
            }
        };
        format!(
            "  - id: retire-{0}\n    phase: contract\n    retire: {{ mapping: {0}, {retire} }}\n",
            self.id
        )
    }

    /// Queries of the twin and of the table that give the same once it was moved.
    pub fn compared(&self) -> (String, String) {
        let filter =
            if self.filter.is_empty() { String::new() } else { format!(" WHERE {}", self.filter) };
        let (theirs, ours) = self.seen.unwrap_or((self.list, self.list));
        let n = self.wide.1;
        (
            format!("SELECT {theirs}, v, {n} FROM {}{filter}", self.twin()),
            format!("SELECT {ours}, v, n FROM {}", self.table()),
        )
    }

    /// The same before it was moved.
    pub fn compared_unmoved(&self) -> (String, String) {
        let list = self.list;
        (
            format!("SELECT {list}, v, n FROM {}", self.twin()),
            format!("SELECT {list}, v, n FROM {}", self.table()),
        )
    }
}
