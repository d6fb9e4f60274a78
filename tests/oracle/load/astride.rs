//! Clients whose views are older than the last rows of the copy and still open when `retire` begins.
//!
//! They hold no lock that it would wait for, and nobody waits for their end before it begins. When it has begun they let some
//! hundred milliseconds pass, and come to the tables by their names under the view that they have: one looks at all rows, one
//! writes rows of its own. What they find is what the twin has in the same view, whether names have changed by then or not. The
//! one who looks goes on to do so under younger views, some of which are open when names change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use super::client::{Client, Part, Shared, Turn};
use super::kills::under_way;
use super::scene::{Era, OWN, OWN_ROWS};
use super::statement::Act;
use crate::oracle::talk::{Isolation, Trouble, code, read, rest, text};
use crate::sandbox::Sandbox;

/// Those there are: after the clients' numbers come theirs.
pub const ASTRIDE: [Part; 2] = [Part::Looks, Part::WritesAstride];

const TURN: Turn =
    Turn { era: Era::Before, isolation: Isolation::RepeatableRead, makes_only: false };

/// Says when `retire` has begun, by what the journal says, or is over.
pub fn tell_of_retire(sandbox: Arc<Sandbox>, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        let is_over =
            || shared.is_retired.load(Ordering::SeqCst) || shared.stop.load(Ordering::SeqCst);
        while !is_over() && under_way(&sandbox).as_deref() != Some("retire") {
            std::thread::sleep(Duration::from_millis(10));
        }
        shared.retires.store(true, Ordering::SeqCst);
    });
}

impl Client {
    /// One transaction.
    pub(super) async fn look_on(
        &mut self,
        conn: &mut PgConnection,
        part: Part,
    ) -> Result<(), Trouble> {
        let is_astride = !self.shared.retires.load(Ordering::SeqCst);
        if is_astride {
            self.opens_view(part).await?;
        } else if part == Part::WritesAstride {
            rest(50).await;
            return Ok(());
        }
        self.said(conn, TURN.isolation.begin(), TURN).await?;
        // It fixes the view, and locks nothing.
        self.said(conn, "SELECT 1", TURN).await?;
        if is_astride {
            self.until(|it| it.retires.load(Ordering::SeqCst)).await?;
            self.lets_pass().await?;
        } else {
            rest(self.random.below(300)).await;
        }
        match part {
            Part::WritesAstride => self.writes_own(conn).await?,
            _ => self.looks(conn).await?,
        }
        self.said(conn, "COMMIT", TURN).await?;
        if is_astride {
            self.shared.straddled.fetch_add(1, Ordering::SeqCst);
        }
        if part == Part::Looks {
            self.shared.looked.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits until the copy is under way; in place, where it writes the same rows, until nobody has to try again for it.
    async fn opens_view(&mut self, part: Part) -> Result<(), Trouble> {
        let waits = part == Part::WritesAstride && self.load.kind.is_in_place();
        self.until(|it| {
            let is_under_way = it.aim.load(Ordering::SeqCst) > 0;
            is_under_way && !waits || it.copied.load(Ordering::SeqCst)
        })
        .await?;
        // Who looks does so at a moment when much is to be copied still.
        if part == Part::WritesAstride {
            rest(self.random.below(200)).await;
        }
        Ok(())
    }

    /// Lets some hundred milliseconds pass, or as many as are asked for while names have not changed.
    async fn lets_pass(&mut self) -> Result<(), Trouble> {
        let patience = Duration::from_millis(self.shared.patience_ms.load(Ordering::SeqCst));
        rest(200 + self.random.below(500)).await;
        let began = Instant::now();
        self.until(|it| began.elapsed() >= patience || it.is_retired.load(Ordering::SeqCst)).await
    }

    async fn until(&self, is_so: impl Fn(&Shared) -> bool) -> Result<(), Trouble> {
        while !is_so(&self.shared) {
            if self.shared.stop.load(Ordering::SeqCst) {
                return Err(Trouble::Again);
            }
            rest(10).await;
        }
        Ok(())
    }

    /// Looks at all rows by the tables' names of now, which are one thing before names change and another after it.
    async fn looks(&self, conn: &mut PgConnection) -> Result<(), Trouble> {
        for (ours, twin) in self.load.kind.by_name() {
            let differing = format!(
                "WITH ours AS ({ours}), twins AS ({twin})
                 SELECT 'no client wrote ' || o FROM (TABLE ours EXCEPT ALL TABLE twins) AS o WHERE EXISTS (SELECT FROM twin)
                 UNION ALL
                 SELECT 'went missing: ' || t FROM (TABLE twins EXCEPT ALL TABLE ours) AS t WHERE EXISTS (SELECT FROM twin)
                 LIMIT 5"
            );
            self.said(conn, "SAVEPOINT look", TURN).await?;
            match read(conn, &differing).await {
                Ok(rows) if rows.is_empty() => return Ok(()),
                Ok(rows) => {
                    let rows: Vec<String> = rows.iter().map(|row| text(row, 0)).collect();
                    return Err(Trouble::Refused(format!("a look by name: {ours}: {rows:#?}")));
                }
                // A table or a column is called otherwise by now.
                Err(error) if ["42P01", "42703"].contains(&code(&error).as_str()) => {
                    self.said(conn, "ROLLBACK TO look", TURN).await?;
                }
                Err(error) => return Err(self.trouble(&differing, TURN, &error)),
            }
        }
        Err(Trouble::Refused("a look by name: there is none".to_owned()))
    }

    /// Writes rows that nobody else writes. What can't be done under so old a view is left.
    async fn writes_own(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        for key in OWN..OWN + OWN_ROWS {
            let act = match self.random.below(5) {
                0 => Act::Null,
                1 => Act::Name,
                2 => Act::Delete,
                _ => Act::Value,
            };
            self.said(conn, "SAVEPOINT own", TURN).await?;
            match self.act(conn, TURN, (key, act)).await {
                Err(Trouble::Again) => self.said(conn, "ROLLBACK TO own", TURN).await?,
                done => {
                    done?;
                    self.shared.wrote_astride.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        Ok(())
    }
}
