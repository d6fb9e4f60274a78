//! Holding a mapping into another database against what is there, before the plan's first change.
//!
//! Absent on purpose: the new side, which its own database looks at.

use sqlx::Executor as _;

use super::mapped::{Captured, of_ends};
use super::{findings, unfit};
use crate::driver::postgres::error::failed;
use crate::driver::postgres::survey::{BAD_EXPRESSION, Look};
use crate::driver::{Error, Severity, SurveyedMapping};
use crate::run::{FailureClass, RowKind};

impl Look<'_> {
    /// A mapping whose new side is in another database. Nothing is said of one whose old side is.
    pub(in crate::driver::postgres) async fn crossing(
        &mut self,
        surveyed: &SurveyedMapping,
    ) -> Result<(), Error> {
        let mapping = &surveyed.mapping;
        if !mapping.from.kind.is_table() || mapping.into.kind.is_table() {
            return Ok(());
        }
        let before = self.found_count();
        let Some(from) = self.side(&mapping.from).await? else { return Ok(()) };
        for (name, expression) in &mapping.columns {
            self.expression(Some(&from), expression, &format!("property {name}")).await?;
        }
        if let RowKind::Relationship(ends) = &mapping.into.kind {
            for (name, expression) in of_ends(ends) {
                self.expression(Some(&from), expression, &name).await?;
            }
        }
        if let Some(filter) = &mapping.filter {
            self.expression(Some(&from), filter, "where").await?;
        }
        // What steps before still add to the table is there when the capture begins, and looked at then.
        if !self.is_sound_since(before) || self.grows(&from) {
            return Ok(());
        }
        let captured = Captured::of(mapping, &from.table);
        let mut found = findings::all(&mut *self.conn, &captured, &from.table).await;
        if let Ok(all) = &mut found
            && all.iter().all(|one| one.severity == Severity::Warning)
        {
            match unfit::all(&mut *self.conn, &captured, &from.table).await {
                Ok(unfit) => all.extend(unfit),
                // Whatever size a table has, a run of it may begin.
                Err(error) if error.class() == Some(FailureClass::TimedOut) => {
                    self.back().await?;
                    all.push(unfit::not_looked_through(&from.table));
                }
                Err(error) => found = Err(error),
            }
        }
        match found {
            Ok(found) => {
                for one in found {
                    self.find(one.severity, one.code, one.message, one.help);
                }
                Ok(())
            }
            Err(Error::Failed(failure)) if failure.class == FailureClass::Refused => {
                self.back().await?;
                let message = format!(
                    "the expressions of mapping {} don't fit {}: {}",
                    mapping.name, from.table.name, failure.message
                );
                self.error(BAD_EXPRESSION, message, failure.help);
                // The server may have quoted a row's value.
                self.hide_last(failure.private);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on behind a statement that failed.
    async fn back(&mut self) -> Result<(), Error> {
        let back = self.conn.execute("ROLLBACK TO SAVEPOINT look").await;
        back.map(|_| ()).map_err(failed("go on looking"))
    }
}
