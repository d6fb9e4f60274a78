//! What clients under load say to a table, and in the same words to the twin.

use super::scene::{DESKS, GROUPS, Kind, Names, OWN, Shape};
use crate::oracle::Random;

/// A statement on one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Insert,
    /// Unless it is there.
    Offer,
    Upsert,
    Value,
    /// Where there is one; what is judged is the row as whoever was waited for leaves it.
    Guarded,
    Null,
    Name,
    Delete,
    /// Locks it.
    Hold,
    /// The first row from here on that nobody has locked, as workers take jobs; says which it was.
    Claim,
    /// To a key so much further on.
    Move(u64),
}

/// The row that a statement is on, as one of the two tables has it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub kind: Kind,
    pub names: Names,
    pub key: u64,
    pub shape: Shape,
    /// Whether a user's trigger writes some of the rows once more.
    pub answers: bool,
}

impl Act {
    /// Whether it is on the row of a key and on no other, whatever else there is.
    pub const fn is_by_key(self) -> bool {
        matches!(
            self,
            Self::Value | Self::Null | Self::Name | Self::Delete | Self::Hold | Self::Move(_)
        )
    }

    /// As this seed would have it.
    pub fn write(self, place: Place, mut random: Random) -> String {
        let Place { kind, names, key, shape, answers } = place;
        let value = kind.literal(shape, (random.below(5), random.below(900)));
        let asks = if answers && random.below(6) == 0 { "?" } else { "" };
        let name = format!("'name {}{asks}'", random.below(900));
        // Nobody else has it.
        let mail = format!("'fresh{:x}'", random.next());
        let Names { table, key: id, value: column, .. } = names;
        let (mails, mail, mail_too) = if kind.has_mail() {
            (", email", format!(", {mail}"), ", email = excluded.email")
        } else {
            ("", String::new(), "")
        };
        // Whoever makes whole rows of the new shape gives all that they have.
        let (more, nothing, and) = match kind {
            Kind::CascadedBoth => (", desk", ", NULL", ", desk = excluded.desk"),
            _ => ("", "", ""),
        };
        let insert = format!(
            "INSERT INTO {table} ({id}, name{mails}, {column}{more}) VALUES ({key}, {name}{mail}, {value}{nothing})"
        );
        match self {
            Self::Insert => insert,
            Self::Offer => format!("{insert} ON CONFLICT ({id}) DO NOTHING"),
            Self::Upsert => format!(
                "{insert} ON CONFLICT ({id}) DO UPDATE SET name = excluded.name, {column} = excluded.{column}{mail_too}{and}"
            ),
            Self::Value => format!("UPDATE {table} SET {column} = {value} WHERE {id} = {key}"),
            Self::Guarded => format!(
                "UPDATE {table} SET {column} = {value} WHERE {id} = {key} AND {column} IS NOT NULL"
            ),
            Self::Null => format!("UPDATE {table} SET {column} = NULL WHERE {id} = {key}"),
            Self::Name => format!("UPDATE {table} SET name = {name} WHERE {id} = {key}"),
            Self::Delete => format!("DELETE FROM {table} WHERE {id} = {key}"),
            Self::Hold => {
                let strength = if random.below(2) == 0 { "UPDATE" } else { "NO KEY UPDATE" };
                format!("SELECT 1 FROM {table} WHERE {id} = {key} FOR {strength}")
            }
            Self::Claim => format!(
                "UPDATE {table} SET {column} = {value} WHERE {id} = (SELECT {id} FROM {table}
                   WHERE {id} >= {key} AND {id} < {OWN} AND {id} % {GROUPS} = {} ORDER BY {id} LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING {id}",
                key % GROUPS
            ),
            Self::Move(by) => {
                format!("UPDATE {table} SET {id} = {id} + {by} WHERE {id} = {key}")
            }
        }
    }
}

/// A statement that writes what it likes in a group of rows.
#[derive(Clone, Copy, Debug)]
pub struct Wild {
    pub kind: Kind,
    pub group: u64,
    /// Where it is to be.
    pub near: u64,
    pub keys: u64,
}

impl Wild {
    /// As this seed would have it.
    pub fn write(self, (names, shape): (Names, Shape), mut random: Random) -> String {
        let Self { kind, group, near, keys } = self;
        let Names { table, value: status, .. } = names;
        let here = near / GROUPS * GROUPS + group + if group == 0 { GROUPS } else { 0 };
        let mut key = || match random.below(3) {
            0 => group + GROUPS * (1 + random.below(keys / GROUPS)),
            _ => here + GROUPS * random.below(4),
        };
        let (id, other, third) = (key(), key(), key());
        let name = format!("wild {}", random.below(900));
        let mail = match random.below(5) {
            0 => "NULL".to_owned(),
            _ => format!("'mail{group}-{}'", random.below(40)),
        };
        let value = kind.literal(shape, (random.below(5), random.below(900)));
        let desk = group + GROUPS * (1 + random.below(DESKS));
        let (desk_column, desk_value) =
            if kind.is_cascaded() { (", desk", format!(", {desk}")) } else { ("", String::new()) };
        let columns = format!("(id, name, email, {status}{desk_column})");
        let row = format!("({id}, '{name}', {mail}, {value}{desk_value})");
        let some = format!("id BETWEEN {id} AND {} AND id % {GROUPS} = {group}", id + 8 * GROUPS);
        let insert = format!("INSERT INTO {table} {columns} VALUES {row}");
        if kind.is_cascaded() && random.below(2) == 0 {
            let (next, order) =
                (group + GROUPS * (1 + random.below(DESKS)), key_of_order(group, &mut random));
            let (desks, orders) = beside(table);
            return match random.below(8) {
                0 => format!("DELETE FROM {desks} WHERE id = {desk}"),
                1 => format!("UPDATE {desks} SET id = {next} WHERE id = {desk}"),
                2 => format!("UPDATE {table} SET desk = {next} WHERE {some}"),
                3 => format!(
                    "INSERT INTO {desks} VALUES ({desk}) ON CONFLICT DO NOTHING; {insert} ON CONFLICT DO NOTHING"
                ),
                4 => format!("UPDATE {orders} SET customer = {other} WHERE id = {order}"),
                5 => format!("DELETE FROM {orders} WHERE id = {order}"),
                _ => format!(
                    "INSERT INTO {orders} VALUES ({order}, {id}) ON CONFLICT (id) DO UPDATE SET customer = excluded.customer"
                ),
            };
        }
        match random.below(22) {
            0 => insert,
            1 => format!("UPDATE {table} SET name = '{name}', email = {mail} WHERE id = {id}"),
            2 => format!("UPDATE {table} SET {status} = NULL WHERE {some}"),
            3 => format!("DELETE FROM {table} WHERE {some} AND id % 3 = 0"),
            4 | 5 => format!("UPDATE {table} SET id = {other} WHERE id = {id}"),
            6 => format!("UPDATE {table} SET id = {other}, {status} = {value} WHERE id = {id}"),
            7 if kind.has_unique_mail() => format!(
                "{insert} ON CONFLICT (email) DO UPDATE SET name = excluded.name, id = excluded.id"
            ),
            8 => format!("{insert} ON CONFLICT DO NOTHING"),
            9 => format!("UPDATE {table} SET {status} = {value}, name = name || '!' WHERE {some}"),
            // Gone and back again, in one statement.
            10 => format!("DELETE FROM {table} WHERE id = {id}; {insert}"),
            11 => {
                format!("UPDATE {table} SET id = id + 10000 * {GROUPS} WHERE {some} AND id % 7 = 0")
            }
            12 => format!(
                "WITH gone AS (DELETE FROM {table} WHERE id = {id} RETURNING name)
                 INSERT INTO {table} {columns} SELECT {other}, name, NULL, {value}{desk_value} FROM gone"
            ),
            13 => format!(
                "MERGE INTO {table} AS t USING (VALUES {row}) AS n {columns} ON t.id = n.id
                 WHEN MATCHED AND t.name LIKE '%!' THEN DELETE
                 WHEN MATCHED THEN UPDATE SET name = t.name || '!', {status} = n.{status}
                 WHEN NOT MATCHED THEN INSERT {columns} VALUES (n.id, n.name, n.email, n.{status}{})",
                if desk_column.is_empty() { "" } else { ", n.desk" }
            ),
            14 => format!("UPDATE {table} AS t SET name = o.name || '+' FROM {table} AS o WHERE t.id = {id} AND o.id = {other}"),
            15 => format!(
                "INSERT INTO {table} {columns} SELECT {other}, name, NULL, {value}{desk_value} FROM {table} WHERE id = {id}
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name"
            ),
            // Two rows take each other's keys.
            16 if id != other => {
                let aside = 5_000_000 * GROUPS + group;
                let to = |from: u64, to: u64| format!("UPDATE {table} SET id = {to} WHERE id = {from}");
                format!("{}; {}; {}", to(id, aside), to(other, id), to(aside, other))
            }
            17 => format!(
                "COPY {table} (id, name, {status}) FROM STDIN\n{}",
                [id, other, third]
                    .map(|id| format!("{id}\t{name}\t{}\n", value.trim_matches('\'').replace("NULL::int", "NULL").replace("NULL", "\\N")))
                    .concat()
            ),
            // Touched, and nothing changed.
            18 => format!("UPDATE {table} SET name = name, email = email WHERE {some}"),
            19 => subtransactions((table, status), (id, value.as_str()), &mut random),
            20 => format!("DELETE FROM {table} AS t USING {table} AS o WHERE t.id = {id} AND o.id = {other} AND t.name < o.name"),
            _ => format!(
                "UPDATE {table} SET {status} = {value} WHERE id = {id}; UPDATE {table} SET {status} = NULL WHERE id = {id}"
            ),
        }
    }
}

/// The tables that rows of a table refer to, and that refer to it.
fn beside(table: &str) -> (&'static str, &'static str) {
    if table == "twin" { ("twin_desks", "twin_orders") } else { ("desks", "orders") }
}

fn key_of_order(group: u64, random: &mut Random) -> u64 {
    group + GROUPS * (1 + random.below(60))
}

/// More subtransactions than a session announces to others by name, some of them undone.
fn subtransactions(
    (table, column): (&str, &str),
    (id, value): (u64, &str),
    random: &mut Random,
) -> String {
    let one = |at: u64| {
        let end = if random.below(3) == 0 { "ROLLBACK TO" } else { "RELEASE" };
        let key = id + at % 4 * GROUPS;
        format!(
            "SAVEPOINT s{at}; UPDATE {table} SET {column} = {value}, name = 'sub {at}' WHERE id = {key}; {end} s{at}"
        )
    };
    (0..70).map(one).collect::<Vec<_>>().join("; ")
}
