//! Looking at the database: [`Introspect`] and [`Signals`] for Neo4j.
//!
//! Absent on purpose: any change.

use async_trait::async_trait;
use neo4rs::{Row, query};
use serde_json::json;

use super::Neo4j;
use super::connection::Ask as _;
use super::error::{failed, shown};
use super::ledger::{PREFIX, get, unsigned};
use super::survey;
use crate::bounds::message::{LONG_TRANSACTION_MS, QUERY_CHARS_MAX, SESSIONS_MAX};
use crate::copy::throttle::Part;
use crate::driver::probed::{Seen, SessionFacts};
use crate::driver::{Error, Finding, Introspect, Probed, Severity, Signals, Survey};
use crate::run::{Digest, FailureClass, Gauge};

/// A query that can't be asked.
const BAD_QUERY: &str = "D210";

impl Neo4j {
    /// Transactions of others that are open for a minute or longer, as far as the user may see them.
    async fn long_open(&self) -> Result<Vec<SessionFacts>, Error> {
        let mut reader = self.connections.read().await?;
        let look = query(
            "SHOW TRANSACTIONS YIELD transactionId, username, status, elapsedTime, currentQuery \
             WHERE elapsedTime.milliseconds >= $long \
             RETURN transactionId AS id, username AS role, status, elapsedTime.milliseconds AS age, currentQuery AS text \
             ORDER BY age DESC LIMIT $most",
        )
        .param("long", LONG_TRANSACTION_MS)
        .param("most", SESSIONS_MAX);
        let rows = reader.rows(look).await.map_err(failed("look at open transactions"))?;
        reader.release();
        let facts = |row: &Row| -> Result<SessionFacts, Error> {
            let (role, text, age): (String, String, i64) =
                (get(row, "role")?, get(row, "text")?, get(row, "age")?);
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Ok(SessionFacts {
                id: get(row, "id")?,
                role: Some(role).filter(|role| !role.is_empty()),
                application: None,
                state: get::<String>(row, "status")?.to_lowercase(),
                age_ms: unsigned(age)?,
                query: line.chars().take(QUERY_CHARS_MAX).collect(),
                locks: Vec::new(),
                waits_for: Vec::new(),
            })
        };
        rows.iter().map(facts).collect()
    }
}

#[async_trait]
impl Introspect for Neo4j {
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for surveyed in &survey.mappings {
            let mut reader = self.connections.read().await?;
            findings.extend(Box::pin(survey::mapping(&mut reader, surveyed)).await?);
            reader.release();
        }
        for (step, text) in &survey.queries {
            let mut reader = self.connections.read().await?;
            match reader.rows(query(&format!("EXPLAIN {text}"))).await {
                Ok(_) => reader.release(),
                Err(neo4rs::Error::Neo4j(told)) => findings.push(Finding {
                    severity: Severity::Error,
                    step: step.clone(),
                    code: BAD_QUERY,
                    message: format!("the query can't be run: {}", shown(told.message())),
                    help: None,
                    private: Vec::new(),
                }),
                Err(error) => return Err(failed("look at a query")(error)),
            }
        }
        Ok(findings)
    }

    async fn probe(&self, survey: &Survey) -> Result<Probed, Error> {
        let findings = self.survey(survey).await?;
        let server = format!("Neo4j {}", self.version().await?);
        let sessions = self.long_open().await?;
        Ok(Probed {
            server,
            findings,
            sessions: Seen::Known(sessions),
            disk_free_bytes: Seen::hidden("Neo4j doesn't tell how much room the disk has"),
            connections: Seen::hidden("Neo4j tells no limit of connections"),
            replicas: Seen::hidden("other members of a cluster aren't looked at"),
            ..Probed::default()
        })
    }

    /// Of all indexes and constraints: what a step does to a label no list of tables tells.
    async fn fingerprint(&self, _tables: &[String]) -> Result<Digest, Error> {
        let mut reader = self.connections.read().await?;
        let mut shapes = Vec::new();
        for what in ["INDEXES", "CONSTRAINTS"] {
            let list = query(&format!(
                "SHOW {what} YIELD name, type, entityType, labelsOrTypes, properties RETURN name, \
                 [type, entityType] + coalesce(labelsOrTypes, []) + [''] + coalesce(properties, []) AS shape ORDER BY name"
            ));
            let rows = reader.rows(list).await.map_err(failed("list indexes and constraints"))?;
            for row in &rows {
                let (name, shape): (String, Vec<String>) = (get(row, "name")?, get(row, "shape")?);
                if !name.starts_with(PREFIX) {
                    shapes.push(json!([name, shape]));
                }
            }
        }
        reader.release();
        Ok(Digest::of("neo4j schema", &shapes.into()))
    }
}

#[async_trait]
impl Signals for Neo4j {
    async fn gauge(&self, _gauge: Gauge, _tables: &[String]) -> Result<Vec<Part>, Error> {
        Err(Error::failed(FailureClass::Refused, "Neo4j shows no such figure")
            .with_help("throttle by a query: query, with max"))
    }
}
