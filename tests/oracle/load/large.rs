//! Transactions that write the table as a whole.

use std::sync::atomic::Ordering;

use sqlx::postgres::PgConnection;

use super::client::{Client, Turn};
use super::scene::{Names, OWN, Shape};
use crate::oracle::Random;
use crate::oracle::talk::{Isolation, Trouble};

impl Client {
    /// Empties the table, and fills it again.
    pub(super) async fn empty(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        let isolation = match self.random.below(4) {
            0 => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let era = self.begin(conn, isolation, "ACCESS EXCLUSIVE").await?;
        let turn = Turn { era, isolation, makes_only: false };
        for (names, shape) in self.two(turn) {
            self.said(conn, &format!("TRUNCATE {}", names.table), turn).await?;
            self.said(conn, &self.load.kind.refill(names, shape, self.load.keys), turn).await?;
        }
        let is_undone = self.random.below(4) == 0;
        if is_undone {
            return self.roll_back(conn, turn).await;
        }
        self.said(conn, "COMMIT", turn).await?;
        self.count(era);
        self.shared.truncated.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Writes thousands of rows at once, while no other client writes any.
    pub(super) async fn large(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
    ) -> Result<(), Trouble> {
        let seed = self.random.next();
        let [ours, twins] =
            self.two(turn).map(|(names, shape)| self.large_statement((names, shape), Random(seed)));
        for (ours, twins) in ours.iter().zip(&twins) {
            self.both(conn, turn, (ours, twins)).await?;
        }
        Ok(())
    }

    /// The table and the twin, and how each spells.
    fn two(&self, turn: Turn) -> [(Names, Shape); 2] {
        [(self.names(turn.era), self.spells(turn.era)), (self.load.kind.twin(), Shape::Old)]
    }

    fn large_statement(&self, (names, shape): (Names, Shape), mut random: Random) -> Vec<String> {
        let (kind, keys) = (self.load.kind, self.load.keys);
        let Names { table, value, .. } = names;
        let (kind_of, rest) = (random.below(4), random.below(5));
        let literal = kind.literal(shape, (random.below(5), random.below(900)));
        let made = format!(
            "INSERT INTO {table} (id, name, {value}) SELECT i, 'made ' || i, {literal} FROM generate_series(1, {keys}) AS i
             WHERE i % 5 = {rest} ON CONFLICT (id) DO NOTHING"
        );
        let some = format!("id < {OWN} AND id % 5");
        match kind_of {
            0 => vec![format!("UPDATE {table} SET name = left(name, 30) || '.' WHERE id < {OWN}")],
            1 => vec![format!("UPDATE {table} SET {value} = {literal} WHERE {some} <> {rest}")],
            2 => vec![format!("DELETE FROM {table} WHERE {some} = {rest}"), made],
            _ => vec![made, format!("UPDATE {table} SET {value} = NULL WHERE {some} = {rest}")],
        }
    }
}
