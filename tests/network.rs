//! The network fails at any moment of a run: what is sent is lost, or its answer, or half of that; a connection carries nothing any
//! more; an answer comes late. Whatever that did to a commit, the run finds out and comes to its end, with each row copied once.
//!
//! Moments are random; `PHASEGATE_SEED` has a failed test do the same again, and `PHASEGATE_SOAK` makes them many.

mod mute;
pub mod wire;

use std::process::Command;

use self::wire::{FAULTS, Fault, Wire};
use crate::bad_luck_postgres::dying::check_end;
use crate::bad_luck_postgres::leads;
use crate::bad_luck_postgres::writer::Writer;
use crate::examples::Example;
use crate::examples::database::Database;
use crate::lives::{chunks_were_once, note_chunks, rows_done};
use crate::oracle::{Random, first_seed, say};
use crate::sandbox::Ran;
use crate::services;

/// How often a kind of fault falls into a run.
const EACH: u64 = 3;
const EACH_OF_SOAK: u64 = 60;
/// How often a command is given again behind one fault: what failed is retried, or gone on with.
const AGAIN_MAX: u32 = 3;

/// Which connections go over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Target,
    Store,
}

struct Run {
    example: Example,
    wire: Wire,
    between: Between,
    /// Where the state store is.
    store: String,
    stored: Option<Database>,
}

impl Run {
    fn new(between: Between) -> Option<Self> {
        Self::with(between, |_| {})
    }

    /// The same of a plan that was changed.
    fn with(between: Between, change: impl Fn(&Example)) -> Option<Self> {
        let example = leads()?;
        change(&example);
        let (store, wire, stored) = match between {
            Between::Target => ("state.db".to_owned(), Wire::to(&example.database.url), None),
            Between::Store => {
                let server = services::postgres("a state store behind a bad network")?;
                let stored = Database::on(&server, "SELECT 1");
                let wire = Wire::to(&stored.url);
                (wire.url.clone(), wire, Some(stored))
            }
        };
        let run = Self { example, wire, between, store, stored };
        run.phasegate(&["run", &run.example.plan(), "--to", "create-leads-v2"]).expect(0);
        note_chunks(&run.example.database);
        Some(run)
    }

    fn command(&self, args: &[&str]) -> Command {
        let args: Vec<&str> =
            ["--state", &self.store].into_iter().chain(args.iter().copied()).collect();
        let mut command = self.example.command(&args);
        if self.between == Between::Target {
            command.env("APP_DATABASE_URL", &self.wire.url);
        }
        command
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// To its end, whatever it takes. Returns how often it had to be told.
    fn to_its_end(&self, case: &str) -> u32 {
        let name = self.example.name;
        let mut ran = self.phasegate(&["run", &self.example.plan()]);
        for again in 0..=AGAIN_MAX {
            if ran.code == Some(0) {
                return again;
            }
            assert!(matches!(ran.code, Some(1 | 69)), "{case}: {ran}");
            let retried = self.phasegate(&["retry", name]);
            // Where none has failed there is none to retry.
            let is_whole = retried.code == Some(64);
            ran = if is_whole { self.phasegate(&["run", &self.example.plan()]) } else { retried };
        }
        panic!("{case}: told {AGAIN_MAX} times, and not at its end: {ran}");
    }

    /// It is over, each of its chunks was committed once, and its journal is whole.
    #[track_caller]
    fn was_once(&self, case: &str) {
        let name = self.example.name;
        check_end(&self.example, case);
        let status = self.phasegate(&["status", name, "--format", "json"]).expect(0);
        chunks_were_once(&self.example.database, ("copy-leads", rows_done(&status, "copy-leads")));
        self.phasegate(&["history", name, "--verify"]).expect(0);
    }
}

fn fails(between: Between) {
    let Some(whole) = Run::new(between) else { return };
    let before = whole.wire.sent();
    assert_eq!(whole.to_its_end("nothing goes wrong"), 0);
    let pieces = whole.wire.sent() - before;
    assert!(pieces > 100, "only {pieces} pieces were sent over the wire");
    drop(whole);
    let mut random = Random(first_seed());
    say(&format!("{between:?}: {pieces} pieces, PHASEGATE_SEED={}", random.0));
    let each = if std::env::var_os("PHASEGATE_SOAK").is_some() { EACH_OF_SOAK } else { EACH };
    let (mut went_wrong, mut again) = (0, 0);
    for fault in FAULTS.iter().cycle().take(FAULTS.len() * usize::try_from(each).unwrap()) {
        let nth = 1 + random.below(pieces);
        let case = format!("{between:?}, {fault:?} at {nth} of {pieces}");
        say(&case);
        let Some(run) = Run::new(between) else { return };
        let writer = Writer::at_work(&run.example);
        run.wire.plan(nth, *fault);
        let told = run.to_its_end(&case);
        assert!(told == 0 || *fault != Fault::Late, "{case}: what is late is not lost");
        again += told;
        went_wrong += u64::from(run.wire.is_over());
        writer.ends_well();
        run.was_once(&case);
    }
    say(&format!(
        "{between:?}: {went_wrong} faults, after which it was told {again} times to go on"
    ));
    // Another run sends a little more or less.
    assert!(went_wrong >= each * 4, "only {went_wrong} faults came about");
}

#[test]
fn whatever_is_lost_on_the_way_to_a_target_the_run_comes_to_its_end() {
    fails(Between::Target);
}

#[test]
fn whatever_is_lost_on_the_way_to_the_state_store_the_run_comes_to_its_end() {
    fails(Between::Store);
}
