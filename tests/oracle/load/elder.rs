//! A client whose view is older than the sync, and who writes under it when everything is copied.

use std::sync::atomic::Ordering;

use sqlx::postgres::PgConnection;

use super::client::{Client, Manner, Turn};
use crate::oracle::talk::{Isolation, Trouble, rest};

/// Rows that it writes, as far as nobody else has since.
const ROWS: usize = 24;

impl Client {
    /// Waits with its view until the copy has ended, and writes then.
    pub(super) async fn look_back(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        let isolation = Isolation::RepeatableRead;
        // A stronger lock would keep the sync from being installed.
        let era = self.begin(conn, isolation, "ACCESS SHARE").await?;
        let turn = Turn { era, isolation, makes_only: false };
        self.said(conn, "SELECT 1 FROM twin LIMIT 1", turn).await?;
        while !self.shared.copied.load(Ordering::SeqCst) {
            if self.shared.stop.load(Ordering::SeqCst) {
                return Err(Trouble::Again);
            }
            rest(20).await;
        }
        let mut keys: Vec<u64> = (0..ROWS).map(|_| self.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        self.take(conn, (&keys, Manner::OneByOne)).await?;
        for key in keys {
            self.said(conn, "SAVEPOINT row", turn).await?;
            match self.one_row(conn, turn, (key, false)).await {
                Err(Trouble::Again) => self.said(conn, "ROLLBACK TO row", turn).await?,
                done => done?,
            }
        }
        self.said(conn, "COMMIT", turn).await?;
        self.shared.looked_back.fetch_add(1, Ordering::SeqCst);
        self.count(era);
        Ok(())
    }
}
