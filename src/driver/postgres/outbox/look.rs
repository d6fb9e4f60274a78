//! Holding a mapping into another database against what is there, before the plan's first change.
//!
//! Absent on purpose: the new side, which its own database looks at.

use sqlx::Executor as _;

use super::findings;
use super::mapped::{Captured, of_ends};
use crate::driver::postgres::error::failed;
use crate::driver::postgres::survey::{BAD_EXPRESSION, Look};
use crate::driver::{Error, SurveyedMapping};
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
        match findings::all(&mut *self.conn, &captured, &from.table).await {
            Ok(found) => {
                for one in found {
                    self.find(one.severity, one.code, one.message, one.help);
                }
                Ok(())
            }
            Err(Error::Failed(failure)) if failure.class == FailureClass::Refused => {
                let back = self.conn.execute("ROLLBACK TO SAVEPOINT look").await;
                back.map_err(failed("go on looking"))?;
                let message = format!(
                    "the expressions of mapping {} don't fit {}: {}",
                    mapping.name, from.table.name, failure.message
                );
                self.error(BAD_EXPRESSION, message, failure.help);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
