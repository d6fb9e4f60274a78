//! What is said of a statement.

use crate::run::Hazard;

use super::{Dialect, same_name};

/// What a statement does, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it may destroy. An UPDATE counts as destructive whatever it writes; see [`Facts::hazard_given`].
    pub hazard: Hazard,
    /// What it may destroy beside writing over [`Facts::writes_columns`].
    pub beside_updates: Hazard,
    /// Tables, views and columns that it makes, and that can't have been there before (or it fails).
    pub creates: Vec<Object>,
    /// Tables, views and columns that are there after it, but may be as old as the data: `IF NOT EXISTS`, new names.
    pub ensures: Vec<Object>,
    /// Tables, views and columns that are gone after it. A renamed one is in [`Facts::changes`].
    pub drops: Vec<Object>,
    /// Tables and views it names, each once, without the schema that is usual: `main` in SQLite, `public` in PostgreSQL.
    pub tables: Vec<String>,
    /// What it does to shapes that were there, for whatever must not change while a dual-write is live.
    pub changes: Vec<Change>,
    /// Columns of rows that were there which it writes over. Empty where that can't be told, too.
    pub writes_columns: Vec<Object>,
    /// Why it has no place in a step at all.
    pub complaint: Option<Complaint>,
    /// Why the database refuses it inside a transaction, where it does.
    pub outside_transaction: Option<String>,
    /// What it locks, and what it does to the rows meanwhile. Empty where the database has no table locks, and where the
    /// statement can't be read.
    pub locks: Vec<TableLock>,
}

/// A lock that a statement takes on a table that was there before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLock {
    /// The table.
    pub table: String,
    /// How strong it is.
    pub mode: LockMode,
    /// What happens to the table's rows while it is held.
    pub work: RowWork,
    /// Why, in one sentence.
    pub reason: String,
}

/// Table locks by strength, under PostgreSQL's names: <https://www.postgresql.org/docs/current/explicit-locking.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Held by reads.
    AccessShare,
    /// Held by SELECT … FOR UPDATE and its kind.
    RowShare,
    /// Held by writes.
    RowExclusive,
    /// Lets reads and writes through, and keeps other changes of the schema out.
    ShareUpdateExclusive,
    /// Lets reads through and keeps writes out.
    Share,
    /// Lets reads through, and keeps writes and others of its kind out.
    ShareRowExclusive,
    /// Lets plain reads through.
    Exclusive,
    /// Keeps everybody out, readers too.
    AccessExclusive,
}

/// How much of a table a statement goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowWork {
    /// Only the catalogue: as fast on a large table as on a small one.
    None,
    /// It reads every row.
    Scan,
    /// It builds an index from every row.
    IndexBuild,
    /// It writes every row anew.
    Rewrite,
    /// It can't be told from the text; counts as the worst.
    Unknown,
}

/// A table, or a column of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// The table or view.
    pub table: String,
    /// The column; `None`: all of the table.
    pub column: Option<String>,
}

/// What a statement does to a shape that was there before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A table gets another name.
    RenameTable {
        /// The table.
        table: String,
        /// Its new name.
        to: String,
    },
    /// A table goes.
    DropTable {
        /// The table.
        table: String,
    },
    /// A column gets another name.
    RenameColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its new name.
        to: String,
    },
    /// A column goes.
    DropColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A table gets another trigger.
    CreateTrigger {
        /// The table or view.
        table: String,
        /// The trigger.
        trigger: String,
    },
    /// A trigger goes.
    DropTrigger {
        /// The table or view, where the statement says whose it was: SQLite's doesn't.
        table: Option<String>,
        /// The trigger.
        trigger: String,
    },
    /// Triggers of a table are switched on or off.
    SwitchTriggers {
        /// The table.
        table: String,
        /// The trigger; `None`: all of them.
        trigger: Option<String>,
    },
    /// A column gets another type.
    ChangeType {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A table becomes a part of another.
    Attach {
        /// The table that it becomes a part of.
        table: String,
        /// The part.
        part: String,
    },
    /// A table is no longer a part of another.
    Detach {
        /// The table that it was a part of.
        table: String,
        /// The part.
        part: String,
    },
    /// A table loses all of its rows, and no row trigger fires.
    Truncate {
        /// The table.
        table: String,
    },
    /// A schema goes or gets another name, and all of its tables with it.
    Schema {
        /// The schema.
        schema: String,
    },
    /// Whatever depends on what is dropped or emptied goes with it. The statement doesn't say what that is.
    Cascade,
}

/// Why a statement has no place in a step, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// One sentence, without a full stop.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Object {
    /// A whole table.
    pub fn table(table: impl Into<String>) -> Self {
        Self { table: table.into(), column: None }
    }

    /// A column of a table.
    pub fn column(table: impl Into<String>, column: impl Into<String>) -> Self {
        Self { table: table.into(), column: Some(column.into()) }
    }

    /// Whether this is `other` or the table that `other` is a column of.
    #[must_use]
    pub fn covers(&self, dialect: Dialect, other: &Self) -> bool {
        same_name(dialect, &self.table, &other.table)
            && match (&self.column, &other.column) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(theirs)) => same_name(dialect, own, theirs),
            }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.table)?;
        match &self.column {
            Some(column) => write!(f, ".{column}"),
            None => Ok(()),
        }
    }
}

impl Change {
    /// The table whose shape changes; `None` where the statement doesn't name it.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::RenameTable { table, .. }
            | Self::DropTable { table }
            | Self::RenameColumn { table, .. }
            | Self::DropColumn { table, .. }
            | Self::CreateTrigger { table, .. }
            | Self::SwitchTriggers { table, .. }
            | Self::ChangeType { table, .. }
            | Self::Attach { table, .. }
            | Self::Detach { table, .. }
            | Self::Truncate { table } => Some(table),
            Self::DropTrigger { table, .. } => table.as_deref(),
            Self::Schema { .. } | Self::Cascade => None,
        }
    }
}

impl Facts {
    /// Of a statement that does nothing worth saying.
    pub(super) const fn harmless() -> Self {
        Self {
            hazard: Hazard::None,
            beside_updates: Hazard::None,
            creates: Vec::new(),
            ensures: Vec::new(),
            drops: Vec::new(),
            tables: Vec::new(),
            changes: Vec::new(),
            writes_columns: Vec::new(),
            complaint: None,
            outside_transaction: None,
            locks: Vec::new(),
        }
    }

    /// Of a statement that can't be read.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        let mut facts = Self::harmless();
        facts.endanger(Hazard::Unknown(reason.into()));
        facts
    }

    /// What the statement may destroy in a plan that made these objects: writing over nothing but columns of the plan's
    /// own making destroys nothing.
    #[must_use]
    pub fn hazard_given(&self, dialect: Dialect, created: &[Object]) -> Hazard {
        let is_ours =
            |written: &Object| created.iter().any(|object| object.covers(dialect, written));
        if !self.writes_columns.is_empty() && self.writes_columns.iter().all(is_ours) {
            self.beside_updates.clone()
        } else {
            self.hazard.clone()
        }
    }

    /// Notes a hazard that holds whatever the plan made.
    pub(super) fn endanger(&mut self, hazard: Hazard) {
        self.beside_updates = worst([self.beside_updates.clone(), hazard.clone()]);
        self.hazard = worst([self.hazard.clone(), hazard]);
    }

    /// Notes that columns are written over.
    pub(super) fn overwrite(&mut self, table: &str, columns: Vec<String>) {
        let objects: Vec<Object> =
            columns.into_iter().map(|column| Object::column(table, column)).collect();
        let names: Vec<String> = objects.iter().map(Object::to_string).collect();
        self.write_over(objects, format!("it updates {}", names.join(", ")));
    }

    /// Notes that what stood in columns is lost, by whatever does so.
    pub(super) fn write_over(&mut self, columns: Vec<Object>, what: String) {
        self.hazard = worst([self.hazard.clone(), Hazard::Destructive(what)]);
        self.writes_columns.extend(columns);
    }

    /// Notes a lock. Of several on one table the strongest counts, with the reason of the most work.
    pub(super) fn lock(&mut self, lock: TableLock) {
        let Some(known) = self.locks.iter_mut().find(|known| known.table == lock.table) else {
            self.locks.push(lock);
            return;
        };
        if (lock.work, lock.mode) > (known.work, known.mode) {
            known.reason = lock.reason;
        }
        known.work = known.work.max(lock.work);
        known.mode = known.mode.max(lock.mode);
    }

    /// Notes a table once.
    pub(super) fn mention(&mut self, table: impl Into<String>) {
        let table = table.into();
        if !self.tables.iter().any(|seen| seen.eq_ignore_ascii_case(&table)) {
            self.tables.push(table);
        }
    }

    /// Notes why the statement has no place in a step; the first reason stands.
    pub(super) fn complain(&mut self, message: impl Into<String>, help: impl Into<String>) {
        if self.complaint.is_none() {
            self.complaint = Some(Complaint { message: message.into(), help: help.into() });
        }
    }
}

/// The most severe of some hazards: destructive before unknown before none; of equals, the first.
#[must_use]
pub fn worst(hazards: impl IntoIterator<Item = Hazard>) -> Hazard {
    const fn rank(hazard: &Hazard) -> u8 {
        match hazard {
            Hazard::None => 0,
            Hazard::Unknown(_) => 1,
            Hazard::Destructive(_) => 2,
        }
    }
    hazards.into_iter().fold(
        Hazard::None,
        |worst, next| {
            if rank(&next) > rank(&worst) { next } else { worst }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_most_severe_hazards_stands() {
        let destructive = |what: &str| Hazard::Destructive(what.to_owned());
        let unknown = |what: &str| Hazard::Unknown(what.to_owned());
        assert_eq!(worst([]), Hazard::None);
        assert_eq!(worst([Hazard::None, unknown("a"), unknown("b")]), unknown("a"));
        assert_eq!(worst([unknown("a"), destructive("b"), destructive("c")]), destructive("b"));
    }

    #[test]
    fn only_updates_of_the_plans_own_columns_are_forgiven() {
        let given =
            |facts: &Facts, created: &[Object]| facts.hazard_given(Dialect::Sqlite, created);
        let mut facts = Facts::harmless();
        facts.overwrite("leads", vec!["email_v2".into()]);
        assert!(matches!(given(&facts, &[]), Hazard::Destructive(_)));
        assert!(matches!(
            given(&facts, &[Object::column("leads", "email")]),
            Hazard::Destructive(_)
        ));
        assert_eq!(given(&facts, &[Object::column("LEADS", "Email_V2")]), Hazard::None);
        assert_eq!(given(&facts, &[Object::table("leads")]), Hazard::None);

        facts.overwrite("other", vec!["x".into()]);
        assert!(matches!(given(&facts, &[Object::table("leads")]), Hazard::Destructive(_)));

        let mut facts = Facts::harmless();
        facts.overwrite("leads", vec!["email_v2".into()]);
        facts.endanger(Hazard::Destructive("it replaces rows of leads".into()));
        assert!(matches!(given(&facts, &[Object::table("leads")]), Hazard::Destructive(_)));

        let mut unreadable = Facts::harmless();
        unreadable.endanger(Hazard::Destructive("it updates rows".into()));
        assert!(matches!(given(&unreadable, &[Object::table("leads")]), Hazard::Destructive(_)));
    }
}
