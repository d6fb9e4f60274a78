//! What holds a copy back while it runs: a task for each signal looks at it, and the copy asks before it begins a chunk.
//!
//! Invariants:
//! - Looking is apart from copying: a signal that takes long to answer holds no worker up, it only becomes old.
//! - Chunks under way finish. While it is shut none begins, no transaction of ours is open, and a pause, a signal or a
//!   tuning is felt at once.
//! - The tasks end with the copy.
//!
//! Absent on purpose: when a signal shuts and lets go. That is `copy::throttle`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bounds::throttle::LOOK_EVERY_MS;
use crate::clock::Stopwatch;
use crate::copy::throttle::{Reading, Valve};
use crate::driver::SharedDriver;
use crate::run::{Moved, Signal, StepId, TargetName, Throttle, Throttled, Tuning, duration};
use crate::store::SharedStore;

use super::event::Progress;

mod http;
mod reading;

use reading::Source;

/// The number that a URL answers with.
pub(super) async fn number_at(url: String) -> Reading {
    http::ask(url, true).await
}

/// Everything that may hold one copy back.
pub(super) struct Throttles {
    asked: Vec<Throttle>,
    shared: Arc<Shared>,
    /// Since when something but a window holds it, without a break.
    held: Option<Stopwatch>,
    max_throttled_for_ms: Option<u64>,
    /// Ends the tasks when it is dropped.
    _looking: JoinSet<()>,
}

struct Shared {
    clock: Stopwatch,
    valves: Vec<Mutex<Valve>>,
    /// Says that something was looked at.
    looked: watch::Sender<()>,
}

impl Shared {
    fn valve(&self, at: usize) -> MutexGuard<'_, Valve> {
        self.valves[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where signals are read.
pub(super) struct Surroundings {
    /// The databases of the plan.
    pub(super) drivers: BTreeMap<TargetName, SharedDriver>,
    /// The store, for what time it is.
    pub(super) store: SharedStore,
    /// The tables of the mapping.
    pub(super) tables: Vec<String>,
}

/// It was held back for longer than the plan allows.
pub(super) struct TooLong {
    /// For how long, in words, and by what.
    pub(super) message: String,
}

impl Throttles {
    /// Begins to look.
    pub(super) fn start(
        asked: &[Throttle],
        max_throttled_for_ms: Option<u64>,
        surroundings: &Surroundings,
    ) -> Self {
        let clock = Stopwatch::start();
        let valves = asked.iter().map(|one| Mutex::new(Valve::new(one, 0))).collect();
        let looked = watch::Sender::new(());
        let shared = Arc::new(Shared { clock, valves, looked });
        let mut looking = JoinSet::new();
        for (at, throttle) in asked.iter().enumerate() {
            let source = Source::of(&throttle.signal, throttle.bound.is_some(), surroundings);
            looking.spawn(look(at, source, throttle.every_ms, Arc::clone(&shared)));
        }
        let asked = asked.to_vec();
        Self { asked, shared, held: None, max_throttled_for_ms, _looking: looking }
    }

    /// What holds it back now, with the limits as they are tuned; empty when a chunk may begin. [`TooLong`] when that has
    /// been so for longer than the plan allows.
    pub(super) fn look(&mut self, tuning: &Tuning) -> Result<Vec<Throttled>, TooLong> {
        let now_ms = self.shared.clock.elapsed_ms();
        let mut holding = Vec::new();
        let mut is_counted = false;
        for (at, throttle) in self.asked.iter().enumerate() {
            let bound = match (throttle.bound, tuning.limits.get(&throttle.name)) {
                (_, Some(Moved::Off)) => continue,
                (Some(bound), Some(Moved::To(limit))) => Some(bound.with_limit(limit.value)),
                (bound, _) => bound,
            };
            let mut valve = self.shared.valve(at);
            if let Some(bound) = bound {
                valve.set_bound(now_ms, bound);
            }
            if let Some(held) = valve.look(now_ms) {
                // That it is not yet evening is no trouble.
                is_counted |= !matches!(throttle.signal, Signal::Window(_));
                holding.push(held);
            }
        }
        holding.sort_by_key(|held| std::cmp::Reverse(held.for_ms));
        self.held = if is_counted { self.held.or_else(|| Some(Stopwatch::start())) } else { None };
        let longest_ms = self.max_throttled_for_ms.unwrap_or(u64::MAX);
        if self.held.is_some_and(|held| held.elapsed_ms() > longest_ms) {
            let reasons: Vec<String> =
                holding.iter().map(|held| held.sentence(held.for_ms)).collect();
            let message = format!(
                "held back for longer than {}: {}",
                duration(longest_ms),
                reasons.join("; ")
            );
            return Err(TooLong { message });
        }
        Ok(holding)
    }

    /// Waits until something may have changed: a signal was looked at, or some time has passed.
    pub(super) async fn wait(&self) {
        let mut looked = self.shared.looked.subscribe();
        let pause = tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS));
        tokio::select! {
            () = pause => {}
            _ = looked.changed() => {}
        }
    }
}

/// Looks at one signal again and again.
async fn look(at: usize, source: Source, every_ms: u64, shared: Arc<Shared>) {
    loop {
        let reading = source.read().await;
        tracing::debug!(?reading, "looked at a throttle");
        let now_ms = shared.clock.elapsed_ms();
        shared.valve(at).sample(now_ms, reading);
        shared.looked.send_replace(());
        tokio::time::sleep(Duration::from_millis(every_ms)).await;
    }
}

/// What those who watch a run have been told of what holds its steps back.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<StepId, String>);

impl Told {
    /// What is new since the last progress of the step, in one sentence; nothing where the same holds it as before.
    pub(super) fn news(&mut self, progress: &Progress) -> Option<String> {
        match progress.throttled.first() {
            Some(held) if self.0.get(&progress.step) == Some(&held.name) => None,
            Some(held) => {
                self.0.insert(progress.step.clone(), held.name.clone());
                Some(format!("held back: {}", held.sentence(held.for_ms)))
            }
            None => {
                let name = self.0.remove(&progress.step)?;
                Some(format!("{name} lets go"))
            }
        }
    }
}
