//! The relays of a process, one for each pair of databases.

use std::collections::BTreeSet;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Context, Error};
use super::{Relay, Stream};
use crate::bounds::relay::STOPPED_WITHIN;
use crate::run::{Program, State};

/// The pairs of databases of a plan's mappings.
fn streams(program: &Program) -> BTreeSet<Stream> {
    let across = program.mappings().values().filter(|mapping| !mapping.is_pushdown());
    across.map(|it| (it.from.target.clone(), it.into.target.clone())).collect()
}

/// Relays beside a drive.
pub struct Relays {
    halt: watch::Sender<bool>,
    streams: BTreeSet<Stream>,
    tasks: Vec<JoinHandle<()>>,
}

impl Relays {
    /// Begins to carry the changes of a run.
    #[must_use]
    pub fn start(ctx: &Context, state: &State) -> Self {
        let (halt, _) = watch::channel(false);
        let mut relays = Self { halt, streams: BTreeSet::new(), tasks: Vec::new() };
        relays.learn(ctx, state);
        relays
    }

    /// Begins to carry, too, what an amended plan has come to copy between other databases.
    pub fn learn(&mut self, ctx: &Context, state: &State) {
        for stream in streams(state.program()) {
            if self.streams.contains(&stream) {
                continue;
            }
            let relay = Relay::of(ctx, state.run(), stream.clone(), self.halt.subscribe());
            if let Some(relay) = relay {
                self.tasks.push(tokio::spawn(relay.run()));
                self.streams.insert(stream);
            }
        }
    }

    /// Ends when the run is over, or nothing of it has to be carried. Fails where one of them has crashed. Whoever gives up waiting can
    /// begin again: none is waited for twice.
    pub async fn ended(&mut self) -> Result<(), Error> {
        while let Some(task) = self.tasks.last_mut() {
            let ended = task.await;
            self.tasks.pop();
            if let Err(error) = ended
                && error.is_panic()
            {
                return Err(Error::Crashed(format!("the relay: {error}")));
            }
        }
        Ok(())
    }

    /// Ends them behind what they have in hand. What takes too long is dropped, and carried again by whoever comes next.
    pub async fn stop(&mut self) {
        self.halt.send_replace(true);
        if tokio::time::timeout(STOPPED_WITHIN, self.all_ended()).await.is_err() {
            for task in &self.tasks {
                task.abort();
            }
            self.all_ended().await;
        }
    }

    /// Ends behind the last of them.
    async fn all_ended(&mut self) {
        while let Err(error) = self.ended().await {
            tracing::error!("{error}");
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.halt.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}
