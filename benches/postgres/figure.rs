//! What was measured, held against what is wanted, as lines or as one JSON document.

use serde_json::{Value, json};

use crate::bed::{Bed, SETTINGS};

/// What a figure is wanted to be.
#[derive(Clone, Copy)]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing: it says what the machine gives, for others to be read by.
    Nothing,
}

impl Wanted {
    fn is_met(self, measured: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(measured >= least),
            Self::AtMost(most) => Some(measured <= most),
            Self::Nothing => None,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least:.2}"),
            Self::AtMost(most) => format!("at most {most:.2}"),
            Self::Nothing => "for comparison".to_owned(),
        }
    }
}

/// Everything that was measured.
pub struct Figures {
    is_json: bool,
    head: Value,
    entered: Vec<Value>,
    /// The most memory that a run of ours took, in KiB, with the rows that it copied.
    pub peaks: Vec<(u64, u64)>,
}

impl Figures {
    pub fn new(bed: &Bed, is_json: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let head = json!({
            "schema_version": 1, "rows": bed.rows, "rounds": bed.rounds, "cores": cores,
            "load": load(), "server": bed.version, "settings": SETTINGS,
        });
        if !is_json {
            let (rows, rounds) = (bed.rows, bed.rounds);
            println!("{rows} rows, {rounds} rounds, {cores} cores, load {}", load());
            println!("{}, {}", bed.version, SETTINGS.join(" "));
        }
        Self { is_json, head, entered: Vec::new(), peaks: Vec::new() }
    }

    /// Enters a figure: its case, what it is, its value and unit, what is wanted, and what it was made of.
    pub fn add(
        &mut self,
        (case, what): (&str, &str),
        (measured, unit): (f64, &str),
        wanted: Wanted,
        made_of: &Value,
    ) {
        let met = wanted.is_met(measured);
        let verdict = match met {
            Some(true) => ", met",
            Some(false) => ", MISSED",
            None => "",
        };
        if !self.is_json {
            println!("{case}: {what}: {measured:.2} {unit} ({}{verdict})", wanted.words());
            println!("    {made_of}");
        }
        self.entered.push(json!({
            "case": case, "what": what, "measured": measured, "unit": unit,
            "wanted": wanted.words(), "met": met, "made_of": made_of,
        }));
    }

    /// Prints the document, if one was asked for.
    pub fn end(mut self) {
        if self.is_json {
            self.head["figures"] = Value::Array(self.entered);
            println!("{}", serde_json::to_string_pretty(&self.head).unwrap());
        }
    }
}

/// How many processes want a core, over the last minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// The middle of some measurements.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// KiB as MiB, in tenths.
// Far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
pub fn mib(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

/// Seconds, to be read.
pub fn rounded(values: &[f64]) -> Vec<f64> {
    values.iter().map(|value| (value * 1_000.0).round() / 1_000.0).collect()
}
