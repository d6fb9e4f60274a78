//! Where the program is killed: while a step is under way that a test names, so that kills fall all over a plan.
//!
//! What is under way stands in the journal, which is read from outside while the program runs. Each time the program dies at once, as a
//! whole, and clients go on writing.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::lives::Lives;
use crate::oracle::Random;
use crate::sandbox::Sandbox;

/// Steps, and how often the program is killed in each.
pub type Deaths = &'static [(&'static str, u32)];

/// Twenty, from the first step that touches clients' tables to the last.
pub const TWENTY: Deaths =
    &[("sync", 2), ("copy", 8), ("compare", 3), ("compare-at-rest", 1), ("retire", 3), ("drop", 3)];

/// A copy that is killed again and again.
pub const IN_THE_COPY: Deaths = &[("copy", 6)];

/// The steps that are still to be killed in, and where kills fell.
pub struct Kills {
    /// In the order of the plan. What a step was over too soon for is left to those behind it.
    left: Vec<(&'static str, u32)>,
    /// By step; [`BETWEEN`] where no step was under way.
    pub fell: BTreeMap<String, u32>,
    pub lives: Lives,
    random: Random,
}

const BETWEEN: &str = "between";

impl Kills {
    pub fn new(deaths: Deaths, random: Random) -> Self {
        Self { left: deaths.to_vec(), fell: BTreeMap::new(), lives: Lives::default(), random }
    }

    /// The place in the list that a kill in this step is taken from.
    fn due(&self, step: &str) -> Option<usize> {
        let here = self.left.iter().position(|(it, _)| *it == step)?;
        self.left[..=here].iter().position(|(_, left)| *left > 0)
    }

    /// Kills the program once it is in a step up to the goal that it is to die in. Returns when it is over, one way or the
    /// other, or is not to die.
    pub fn kill(&mut self, goal: &str, (sandbox, child): (&Sandbox, &mut Child)) {
        while self.due(goal).is_some() && child.try_wait().unwrap().is_none() {
            let due = under_way(sandbox).and_then(|step| Some((self.due(&step)?, step)));
            let Some((place, step)) = due else {
                std::thread::sleep(Duration::from_millis(3));
                continue;
            };
            // Of a short step the first kill comes at once, so that there is one.
            let within_ms = match step.as_str() {
                "copy" => 300,
                "compare" | "compare-at-rest" => 80,
                _ if self.fell.contains_key(&step) => 40,
                _ => 1,
            };
            std::thread::sleep(Duration::from_millis(self.random.below(within_ms)));
            return self.die(place, sandbox, child);
        }
    }

    /// Kills that no step was long enough for: of a program that has just begun to look at a run that is over.
    pub fn kill_what_is_left(&mut self, sandbox: &Sandbox) {
        while let Some(place) = self.left.iter().position(|(_, left)| *left > 0) {
            let mut command = sandbox.command(&["run", "plan.yaml"]);
            self.lives.begins();
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(self.random.below(30)));
            self.die(place, sandbox, &mut child);
        }
    }

    fn die(&mut self, place: usize, sandbox: &Sandbox, child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
        self.lives.was_killed(child.id(), "load", |args| sandbox.run(args));
        let fell = under_way(sandbox).unwrap_or_else(|| BETWEEN.to_owned());
        *self.fell.entry(fell).or_default() += 1;
        self.left[place].1 -= 1;
    }

    /// That kills fell as often as they were to, and in each of the steps.
    #[track_caller]
    pub fn check(&self, deaths: Deaths, case: &str) {
        let fell: u32 = self.fell.values().sum();
        let meant: u32 = deaths.iter().map(|(_, times)| times).sum();
        assert_eq!(fell, meant, "{case}: kills fell on {:?}", self.fell);
        for (step, _) in deaths {
            assert!(self.fell.contains_key(*step), "{case}: none in {step} of {:?}", self.fell);
        }
        let between = self.fell.get(BETWEEN).copied().unwrap_or(0);
        assert!(between <= meant / 4, "{case}: few in steps of {:?}", self.fell);
    }
}

/// The step that the journal says is under way.
pub fn under_way(sandbox: &Sandbox) -> Option<String> {
    let last = "SELECT CAST(body AS TEXT) FROM records ORDER BY version DESC LIMIT 8";
    for record in sandbox.rows(".phasegate/state.db", last) {
        let record: Value = serde_json::from_str(&record).unwrap();
        let event = &record["record"]["event"];
        match event["kind"].as_str().unwrap() {
            "step_started" => return event["step"].as_str().map(ToOwned::to_owned),
            "step_succeeded" | "step_failed" | "step_differs" | "step_ambiguous" => return None,
            _ => {}
        }
    }
    None
}
