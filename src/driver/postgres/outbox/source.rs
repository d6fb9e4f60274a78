//! The old side of mappings into other databases: [`ChangeSource`] for PostgreSQL.
//!
//! Absent on purpose: how any of it is done, which the other files of this folder say.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::{capture, capture_state, claims, enqueue, lag, pages, parked, relay, settled};
use crate::copy::chunk::{Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::crossing::{Change, ChangeSource, Crossed, Lag, Moment, Page, Rows, Settled};
use crate::driver::postgres::error::{failed, refused};
use crate::driver::postgres::ledger::unsigned;
use crate::driver::postgres::shape_sql::{Pick, Which};
use crate::driver::postgres::{Postgres, passes, source};
use crate::driver::{Applied, Basis, Error, Fence, SyncState, Window, Work};
use crate::run::{Mapping, Parked, RunId};

/// Everything.
const ALL: Chunk = Chunk { lo: None, hi: None };

#[async_trait]
impl ChangeSource for Postgres {
    async fn crossed(&self, mapping: &Mapping) -> Result<Crossed, Error> {
        let mut reader = self.connections.read().await?;
        let of = self.resolved(reader.conn()?, mapping).await?;
        reader.release().await;
        let names = of.captured.columns.iter().map(|(name, _)| name.clone()).collect();
        Ok(Crossed { mapping: mapping.clone(), names })
    }

    async fn capture(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<Applied, Error> {
        capture::begin(self, (fence, work), mapping).await
    }

    async fn end_capture(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<Applied, Error> {
        capture::end(self, (fence, work), mapping).await
    }

    async fn capture_state(&self, mapping: &Mapping) -> Result<SyncState, Error> {
        capture_state::state(self, mapping).await
    }

    async fn capture_basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        let mut reader = self.connections.read().await?;
        let basis = passes::basis(reader.conn()?, self.connections.schema(), mapping).await?;
        reader.release().await;
        Ok(basis)
    }

    async fn rows_about(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let (table, filter) = (&mapping.from.table, mapping.filter.as_deref());
        let rows = source::estimate(reader.conn()?, table, filter).await?;
        reader.release().await;
        Ok(rows)
    }

    async fn rows_counted(&self, mapping: &Mapping) -> Result<u64, Error> {
        let mut reader = self.connections.read().await?;
        let of = self.resolved(reader.conn()?, mapping).await?;
        let rows = of.shape.rows_sql(Which::Old, &Pick::Chunk(&ALL));
        let sql = format!("SELECT count(*) FROM {rows}");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(reader.conn()?).await;
        let row = row.map_err(|error| refused(&error))?;
        reader.release().await;
        unsigned(row.try_get(0).map_err(failed("count rows"))?)
    }

    async fn last_key(&self, mapping: &Mapping) -> Result<Option<Key>, Error> {
        let mut reader = self.connections.read().await?;
        let of = self.resolved(reader.conn()?, mapping).await?;
        source::by_index(reader.conn()?).await?;
        let key = source::last_key(reader.conn()?, &of.shape).await?;
        reader.release().await;
        Ok(key)
    }

    async fn bounds(
        &self,
        mapping: &Mapping,
        range: &Chunk,
        (rows, count): (u32, u32),
    ) -> Result<Vec<Key>, Error> {
        let mut reader = self.connections.read().await?;
        let of = self.resolved(reader.conn()?, mapping).await?;
        let size = Window { rows, count, is_fixed: true };
        let ends = source::ends(reader.conn()?, &of.shape, range, size).await?;
        reader.release().await;
        Ok(ends)
    }

    async fn page(&self, mapping: &Mapping, of: (&Chunk, Rows)) -> Result<Page, Error> {
        pages::page(self, mapping, of).await
    }

    async fn rows_of(&self, mapping: &Mapping, keys: &[Vec<Datum>]) -> Result<Settled, Error> {
        settled::rows_of(self, mapping, keys).await
    }

    async fn which_exist(
        &self,
        mapping: &Mapping,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>, Error> {
        pages::which_exist(self, mapping, keys).await
    }

    async fn some_rows(&self, mapping: &Mapping, wanted: u32) -> Result<Page, Error> {
        pages::some(self, mapping, wanted).await
    }

    async fn claim(
        &self,
        fence: &Fence,
        mappings: &[Mapping],
        wanted: (u32, &[u64]),
    ) -> Result<Vec<Change>, Error> {
        claims::claim(self, fence, mappings, wanted).await
    }

    async fn applied(&self, fence: &Fence, versions: &[u64]) -> Result<u64, Error> {
        claims::applied(self, fence, versions).await
    }

    async fn change_refused(
        &self,
        fence: &Fence,
        version: u64,
        said: (Option<&str>, &str),
        most_tries: u32,
    ) -> Result<bool, Error> {
        claims::refused(self, fence, version, (said, most_tries)).await
    }

    async fn retry_changes(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        claims::retry(self, fence, mapping).await
    }

    async fn parked_changes(&self, mapping: &Mapping, most: u32) -> Result<Parked, Error> {
        parked::parked(self, mapping, most).await
    }

    async fn enqueue(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        keys: &[Vec<Datum>],
    ) -> Result<u64, Error> {
        enqueue::enqueue(self, fence, (mapping, keys)).await
    }

    async fn lag(&self, mappings: &[Mapping]) -> Result<Lag, Error> {
        lag::lag(self, mappings).await
    }

    async fn moment(&self) -> Result<Moment, Error> {
        lag::moment(self).await
    }

    async fn is_drained(&self, moment: &Moment, mappings: &[Mapping]) -> Result<bool, Error> {
        lag::is_drained(self, moment, mappings).await
    }

    async fn is_carried(&self, moment: &Moment, mappings: &[Mapping]) -> Result<bool, Error> {
        lag::is_carried(self, moment, mappings).await
    }

    async fn enter_relay(&self, relay: &RunId, token: u64) -> Result<Fence, Error> {
        relay::enter(self, relay, token).await
    }
}
