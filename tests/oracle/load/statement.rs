//! What clients under load say to a table, and in the same words to the twin.

use super::scene::{GROUPS, Kind, Names, Shape};
use crate::oracle::Random;

/// A statement on one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Insert,
    /// Unless it is there.
    Offer,
    Upsert,
    Value,
    Null,
    Name,
    Delete,
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
        let insert = format!(
            "INSERT INTO {table} ({id}, name{mails}, {column}) VALUES ({key}, {name}{mail}, {value})"
        );
        match self {
            Self::Insert => insert,
            Self::Offer => format!("{insert} ON CONFLICT ({id}) DO NOTHING"),
            Self::Upsert => format!(
                "{insert} ON CONFLICT ({id}) DO UPDATE SET name = excluded.name, {column} = excluded.{column}{mail_too}"
            ),
            Self::Value => format!("UPDATE {table} SET {column} = {value} WHERE {id} = {key}"),
            Self::Null => format!("UPDATE {table} SET {column} = NULL WHERE {id} = {key}"),
            Self::Name => format!("UPDATE {table} SET name = {name} WHERE {id} = {key}"),
            Self::Delete => format!("DELETE FROM {table} WHERE {id} = {key}"),
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
        let (id, other) = (key(), key());
        let name = format!("wild {}", random.below(900));
        let mail = match random.below(5) {
            0 => "NULL".to_owned(),
            _ => format!("'mail{group}-{}'", random.below(40)),
        };
        let value = kind.literal(shape, (random.below(5), random.below(900)));
        let columns = format!("(id, name, email, {status})");
        let row = format!("({id}, '{name}', {mail}, {value})");
        let some = format!("id BETWEEN {id} AND {} AND id % {GROUPS} = {group}", id + 8 * GROUPS);
        let insert = format!("INSERT INTO {table} {columns} VALUES {row}");
        match random.below(15) {
            0 => insert,
            1 => format!("UPDATE {table} SET name = '{name}', email = {mail} WHERE id = {id}"),
            2 => format!("UPDATE {table} SET {status} = NULL WHERE {some}"),
            3 => format!("DELETE FROM {table} WHERE {some} AND id % 3 = 0"),
            4 | 5 => format!("UPDATE {table} SET id = {other} WHERE id = {id}"),
            6 => format!("UPDATE {table} SET id = {other}, {status} = {value} WHERE id = {id}"),
            7 => format!(
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
                 INSERT INTO {table} {columns} SELECT {other}, name, NULL, {value} FROM gone"
            ),
            13 => format!(
                "MERGE INTO {table} AS t USING (VALUES {row}) AS n {columns} ON t.id = n.id
                 WHEN MATCHED AND t.name LIKE '%!' THEN DELETE
                 WHEN MATCHED THEN UPDATE SET name = t.name || '!', {status} = n.{status}
                 WHEN NOT MATCHED THEN INSERT {columns} VALUES (n.id, n.name, n.email, n.{status})"
            ),
            _ => format!(
                "UPDATE {table} SET {status} = {value} WHERE id = {id}; UPDATE {table} SET {status} = NULL WHERE id = {id}"
            ),
        }
    }
}
