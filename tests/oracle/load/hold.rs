//! A throttle that opens and shuts at random: a file that is there or not, and a number that is large, missing or not to be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::examples::database::{block_on, connect};
use crate::oracle::Random;
use crate::oracle::talk::say;
use crate::sandbox::Sandbox;

/// The table that the number is in.
pub const SCHEMA: &str = "CREATE TABLE hold (n int); INSERT INTO hold VALUES (0);";

/// Holds a copy back now and then, until it is stopped; then it holds nothing any more.
pub struct Hold {
    stops: Arc<AtomicBool>,
    works: Option<JoinHandle<u32>>,
}

/// Where the file is.
fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("hold-it")
}

/// What the backfill says of it.
pub fn throttle(sandbox: &Sandbox) -> String {
    format!(
        "      throttle:
        - name: told
          file: {}
          every: 100ms
        - name: counted
          query: select n from hold
          max: 10
          every: 100ms
",
        file(sandbox).display()
    )
}

impl Hold {
    /// Begins to hold and let go.
    pub fn begin(sandbox: &Sandbox, url: &str, mut random: Random) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let (file, url, told) = (file(sandbox), url.to_owned(), Arc::clone(&stops));
        let works = std::thread::spawn(move || {
            block_on(async {
                let mut conn = connect(&url).await.unwrap();
                let mut times = 0;
                while !told.load(Ordering::SeqCst) {
                    let (shuts, opens) = match random.below(5) {
                        0 | 1 => ("", ""),
                        2 => ("UPDATE hold SET n = 50", "UPDATE hold SET n = 0"),
                        3 => ("UPDATE hold SET n = NULL", "UPDATE hold SET n = 0"),
                        _ => ("ALTER TABLE hold RENAME n TO m", "ALTER TABLE hold RENAME m TO n"),
                    };
                    if shuts.is_empty() {
                        std::fs::write(&file, "").unwrap();
                    } else {
                        say(&mut conn, shuts).await.unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(100 + random.below(300))).await;
                    if opens.is_empty() {
                        std::fs::remove_file(&file).unwrap();
                    } else {
                        say(&mut conn, opens).await.unwrap();
                    }
                    times += 1;
                    tokio::time::sleep(Duration::from_millis(300 + random.below(900))).await;
                }
                times
            })
        });
        Self { stops, works: Some(works) }
    }

    /// Lets go for good. How often it held.
    pub fn end(mut self) -> u32 {
        self.stops.store(true, Ordering::SeqCst);
        self.works.take().map_or(0, |works| works.join().unwrap())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::SeqCst);
        if let Some(works) = self.works.take() {
            // The test has failed, and says why.
            let _ = works.join();
        }
    }
}
