//! Clients that write while something else goes on, and how long each of their writes took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

/// How many there are.
const CLIENTS: u64 = 4;
/// How often each writes one row.
const EVERY: Duration = Duration::from_millis(10);

/// Clients at work.
pub struct Clients {
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<Vec<f64>>,
}

impl Clients {
    /// Clients that update single rows of the source, anywhere in it.
    pub fn start(url: &str, rows: u64) -> Self {
        let (is_over, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for client in 0..CLIENTS {
            let (url, is_over) = (url.to_owned(), Arc::clone(&is_over));
            tasks.spawn(async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let (mut took_ms, mut random) = (Vec::new(), Random(client + 1));
                while !is_over.load(Ordering::Acquire) {
                    let id = random.below(rows) + 1;
                    let began = Instant::now();
                    update(&mut connection, id).await;
                    took_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
                    tokio::time::sleep(EVERY).await;
                }
                took_ms
            });
        }
        Self { is_over, tasks }
    }

    /// Ends them. Returns how long each write took, in milliseconds, the shortest first.
    pub async fn end(self) -> Vec<f64> {
        self.is_over.store(true, Ordering::Release);
        let mut all: Vec<f64> = self.tasks.join_all().await.into_iter().flatten().collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// One row gets another note.
pub async fn update(connection: &mut PgConnection, id: u64) {
    let done = sqlx::query("UPDATE leads SET note = 'written by a client' WHERE id = $1")
        .bind(id.cast_signed())
        .execute(connection)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Numbers that are the same in each round (Knuth's MMIX generator).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % end
    }
}

/// The value that so many of a hundred don't exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len().max(1) - 1) * percent / 100).copied().unwrap_or(f64::NAN)
}
