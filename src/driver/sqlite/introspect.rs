//! Looking at the catalogue: [`Introspect`] for SQLite.
//!
//! Absent on purpose: any change, and any opinion of what to do about a finding beyond its help.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;

use super::catalogue::{self, Table};
use super::{Sqlite, probe, source, survey};
use crate::driver::{Error, Finding, Introspect, Probed, Survey, TableSize};
use crate::run::Digest;

#[async_trait]
impl Introspect for Sqlite {
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let mut reader = self.connections.snapshot().await?;
        let findings = survey::look(reader.conn(), survey).await?;
        reader.release().await;
        Ok(findings)
    }

    async fn probe(&self, survey: &Survey) -> Result<Probed, Error> {
        probe::look(self, survey).await
    }

    async fn fingerprint(&self, tables: &[String]) -> Result<Digest, Error> {
        let mut reader = self.connections.snapshot().await?;
        let digest = fingerprint(reader.conn(), tables).await?;
        reader.release().await;
        Ok(digest)
    }

    async fn size(&self, table: &str) -> Result<TableSize, Error> {
        let mut reader = self.connections.snapshot().await?;
        let size = source::table_size(reader.conn(), table).await?;
        reader.release().await;
        Ok(size)
    }
}

/// The fingerprint of tables, in whatever order and case they are named.
async fn fingerprint(conn: &mut SqliteConnection, tables: &[String]) -> Result<Digest, Error> {
    let mut shapes = serde_json::Map::new();
    for name in tables {
        let table = catalogue::table(conn, name).await?;
        shapes.insert(name.to_ascii_lowercase(), table.as_ref().map_or(Value::Null, shape));
    }
    Ok(Digest::of("sqlite tables", &Value::Object(shapes)))
}

/// What of a table its readers and writers can notice. The CREATE statements carry what the catalogue's functions don't:
/// checks, collations, generated columns' expressions.
fn shape(table: &Table) -> Value {
    let indexes: Vec<Value> = table
        .indexes
        .iter()
        .filter(|index| !catalogue::is_ours(&index.name))
        .map(|index| json!([index.name, index.sql]))
        .collect();
    let triggers: Vec<Value> =
        table.user_triggers().map(|trigger| json!([trigger.name, trigger.sql])).collect();
    json!({ "name": table.name, "sql": table.sql, "indexes": indexes, "triggers": triggers })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::Database;
    use super::*;

    #[tokio::test]
    async fn a_fingerprint_changes_with_what_clients_can_notice_and_with_nothing_else() {
        let database = Database::with(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n); CREATE TABLE u (x); CREATE INDEX u_x ON u (x)",
        )
        .await;
        let sqlite = database.open().await;
        let names = ["t".to_owned(), "absent".to_owned()];
        let mut seen = vec![sqlite.fingerprint(&names).await.unwrap()];
        for same in [
            "INSERT INTO t VALUES (1, 2)",
            "DROP INDEX u_x",
            "CREATE TRIGGER phasegate_1 AFTER INSERT ON t BEGIN SELECT 1; END",
        ] {
            database.run(same).await;
            assert_eq!(sqlite.fingerprint(&names).await.unwrap(), seen[0], "{same}");
        }
        let other_order = ["ABSENT".to_owned(), "T".to_owned()];
        assert_eq!(sqlite.fingerprint(&other_order).await.unwrap(), seen[0]);
        for change in [
            "ALTER TABLE t ADD COLUMN m TEXT",
            "CREATE UNIQUE INDEX t_n ON t (n)",
            "CREATE TRIGGER theirs AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE TABLE absent (x)",
        ] {
            database.run(change).await;
            let now = sqlite.fingerprint(&names).await.unwrap();
            assert!(!seen.contains(&now), "{change}");
            seen.push(now);
        }
    }
}
