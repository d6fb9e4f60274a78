//! What every command works with: the settings, the printer, the signals; and the ways to a store and to a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::engine::{self, Loaded, Signal, process};
use crate::report::advice::quoted;
use crate::report::{CommandLine, Printer};
use crate::run::{Actor, Command, Identity, Redact, RunId, State, Timestamp};
use crate::store::{Create, Lease, RunHeader, SharedStore};

use super::answer::Failure;
use super::args::Global;
use super::here;
use super::people;
use super::redacted::Redacted;
use super::select;
use super::settings::{Need, Settings};
use super::trouble;
use super::wiring;

/// What every command works with.
#[derive(Debug)]
pub struct Session {
    /// What was typed for every command.
    pub global: Global,
    /// Who writes.
    pub printer: Printer,
    /// What the operating system asked of the process.
    pub signal: watch::Receiver<Signal>,
    catches: AtomicBool,
}

/// An open state store with the settings that led to it.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The settings.
    pub settings: Settings,
    /// The store.
    pub store: SharedStore,
}

/// A run that a command works on.
#[derive(Debug)]
pub struct OpenRun {
    /// Where it was found.
    pub desk: Desk,
    /// The run.
    pub id: RunId,
    /// As its journal has it.
    pub loaded: Loaded,
    /// The store's clock when it was read.
    pub now: Timestamp,
    /// How suggestions name it.
    pub line: CommandLine,
}

impl Session {
    /// A session that leaves signals to [`Session::interrupted`] until a command catches them.
    #[must_use]
    pub fn new(global: Global, printer: Printer, signal: watch::Receiver<Signal>) -> Self {
        Self { global, printer, signal, catches: AtomicBool::new(false) }
    }

    /// From now on the command looks at [`Session::signal`] itself and ends in order.
    pub fn catch_signals(&self) {
        self.catches.store(true, Ordering::Relaxed);
    }

    /// Waits for a signal that no command catches: whatever it is waiting for (a person, a network) is given up.
    pub async fn interrupted(&self) -> Signal {
        let mut signal = self.signal.clone();
        loop {
            if signal.changed().await.is_err() {
                return std::future::pending().await;
            }
            let came = *signal.borrow_and_update();
            if !self.catches.load(Ordering::Relaxed) {
                return came;
            }
        }
    }

    /// The settings of a command on a plan's file.
    pub fn settings_for_plan(&self, plan: &Path) -> Result<Settings, Failure> {
        let directory = plan.parent().filter(|parent| !parent.as_os_str().is_empty());
        let start = directory.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Settings::resolve(&self.global, &start, Need::Environment)
    }

    /// The settings of a command on a run.
    pub fn settings_for_run(&self) -> Result<Settings, Failure> {
        Settings::resolve(&self.global, Path::new("."), Need::StateStore)
    }

    /// Opens the store of these settings.
    pub async fn desk(&self, settings: Settings, create: Create) -> Result<Desk, Failure> {
        let mut store =
            wiring::open_store(settings.state.as_ref().map_err(Clone::clone)?, create).await?;
        let redact = self.global.redact();
        if redact != Redact::Nothing {
            store = Arc::new(Redacted { inner: store, redact });
        }
        tracing::debug!(store = store.location(), "state store opened");
        Ok(Desk { settings, store })
    }

    /// Opens the store and finds the run that was typed.
    pub async fn open(&self, typed: &str) -> Result<OpenRun, Failure> {
        let desk = self.desk(self.settings_for_run()?, Create::Never).await?;
        let runs = desk.runs().await?;
        let id = select::choose(&runs, typed, desk.settings.environment.as_ref())?;
        let mut run = desk.open(id, &runs).await?;
        // Where the store was named instead of the environment, only the run says how its people are known.
        if run.state().program().policy().identity != Identity::Claimed {
            let known = people::actor(self.global.actor.as_deref(), people::Identity::Os)?;
            run.desk.settings.actor = known;
        }
        Ok(run)
    }
}

impl Desk {
    /// All runs, newest first.
    pub async fn runs(&self) -> Result<Vec<RunHeader>, Failure> {
        self.store.runs().await.map_err(|error| trouble::of_store(&error, self))
    }

    /// Reads a run. `runs` are all runs of the store: they decide how suggestions name this one.
    pub async fn open(&self, id: RunId, runs: &[RunHeader]) -> Result<OpenRun, Failure> {
        let loaded = engine::load(&self.store, &id)
            .await
            .map_err(|error| trouble::of_engine(&error, self, None))?;
        let now = self.now().await?;
        let plan = loaded.state.program().plan();
        let environment = self.settings.environment.as_ref();
        let by_name = select::choose(runs, plan, environment).is_ok_and(|found| found == id);
        let mut line = self.settings.line(if by_name { plan.to_owned() } else { id.to_string() });
        if self.settings.environment.is_none() {
            // The store was named instead; a command on the plan can't do without.
            let environment = loaded.state.program().environment();
            line.program.push_str(" --env ");
            line.program.push_str(&quoted(environment.as_str()));
        }
        Ok(OpenRun { desk: self.clone(), id, loaded, now, line })
    }

    /// The store's clock.
    pub async fn now(&self) -> Result<Timestamp, Failure> {
        self.store.now().await.map_err(|error| trouble::of_store(&error, self))
    }

    /// Who acts.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.settings.actor
    }
}

impl OpenRun {
    /// Its state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.loaded.state
    }

    /// Whoever drives it now.
    #[must_use]
    pub fn driver(&self) -> Option<&Lease> {
        let lease = self.loaded.lease.as_ref()?;
        process::is_held(lease, self.now).then_some(lease)
    }

    /// Asks something of it as an operator; the state is the one after that. Where another store has the run nothing is recorded.
    pub async fn ask(&mut self, session: &Session, command: Command) -> Result<(), Failure> {
        let refused = engine::may_ask(self.state(), self.desk.actor(), &command, self.now);
        refused.map_err(|error| self.failure(&error))?;
        // Whoever drives it for this store has it.
        if self.driver().is_none() {
            let goes_on = matches!(
                command,
                Command::Resume | Command::Retry | Command::Rollback { .. } | Command::Abort { .. }
            );
            here::is_here(session, self, goes_on).await?;
        }
        let asked = engine::ask(&self.desk.store, &self.id, self.desk.actor(), command).await;
        self.loaded.state = asked.map_err(|error| self.failure(&error))?;
        Ok(())
    }

    /// Reads it again.
    pub async fn reload(&mut self) -> Result<(), Failure> {
        let loaded = engine::load(&self.desk.store, &self.id).await;
        self.loaded = loaded.map_err(|error| self.failure(&error))?;
        self.now = self.desk.now().await?;
        Ok(())
    }

    /// An engine's error about this run.
    #[must_use]
    pub fn failure(&self, error: &engine::Error) -> Failure {
        trouble::of_engine(error, &self.desk, Some((self.state().pin(), &self.line)))
    }
}
