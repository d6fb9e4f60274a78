//! A play of a load: clients that write, and a plan that is brought to its end meanwhile.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Load;
use super::astride::{ASTRIDE, tell_of_retire};
use super::client::{Client, Part, Shared};
use super::hold::{self, Hold};
use super::kills::Kills;
use super::labels::{CARRIED, label, labelled};
use super::watch::{Seen, look_on};
use crate::examples::database::Database;
use crate::lives::{chunks_were_once, note_chunks, rows_done};
use crate::oracle::Random;
use crate::sandbox::{Ran, Sandbox, wait_for};

/// Some chunks stay open for a while before they commit, as on a machine that has more to do.
const SLOW: &str = "postgres::before-commit::chunk=25%sleep(12)";

const CLIENTS: usize = 8;

/// A play of a load, under way.
pub struct Play {
    pub load: Load,
    pub database: Database,
    pub sandbox: Arc<Sandbox>,
    pub shared: Arc<Shared>,
    case: String,
    /// Given to every run of the program.
    failpoints: String,
    /// Where a play is paused is not to depend on how often it is killed, nor the other way round.
    pauses: Random,
    kills: Kills,
    pauses_left: u32,
    /// How often the program said that something holds it back.
    held_back: usize,
    /// How long each goal took, in the order of the plan.
    took: Vec<(String, Duration)>,
    /// How often a step that gave way for too long may be tried again.
    asks_left: u32,
    /// How often a table was emptied between the last comparison and the end of both sides.
    compared_again: u32,
    clients: Vec<JoinHandle<Result<(), String>>>,
    looks_on: Option<JoinHandle<Seen>>,
    labels: Option<JoinHandle<u64>>,
}

impl Play {
    /// A database where the plan's first step is done and clients have begun to write.
    pub fn begin(server: &str, load: Load, seed: u64, faults: &str) -> Self {
        let database =
            Database::on(server, &format!("{}{}", hold::SCHEMA, load.kind.schema(load.keys)));
        let (app, role) = database.as_application();
        let writes = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO";
        database.run(&format!("{writes} {role}"));
        let sandbox = Arc::new(Sandbox::new());
        let mut random = Random(seed);
        let held = if load.held { hold::throttle(&sandbox) } else { String::new() };
        sandbox.write("plan.yaml", &load.kind.plan(&database.url, load.chunk_rows, &held));
        let failpoints =
            [SLOW, faults].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>();
        let mut play = Self {
            load,
            database,
            sandbox,
            shared: Arc::new(Shared::default()),
            case: format!("{load:?}, PHASEGATE_SEED={seed}"),
            failpoints: failpoints.join(";"),
            pauses: Random(random.next()),
            kills: Kills::new(load.kills, Random(random.next())),
            pauses_left: load.pauses,
            held_back: 0,
            took: Vec::new(),
            asks_left: 2,
            compared_again: 0,
            clients: Vec::new(),
            looks_on: None,
            labels: None,
        };
        play.to("create").expect(0);
        if !load.kills.is_empty() {
            note_chunks(&play.database);
        }
        if load.kind.is_both() {
            // Clients of the new shape write the new table; others need no right to it, nor to anything of ours.
            play.database.run(&format!("{writes} {role}"));
        }
        let parts = [Part::Writes; CLIENTS].into_iter().chain(ASTRIDE);
        for (number, part) in parts.enumerate() {
            let url = if Client::owns_nothing(number) { &app } else { &play.database.url };
            let (url, random) = (url.clone(), Random(random.next()));
            let client = Client::new(load, number, random, Arc::clone(&play.shared)).who(part);
            play.clients.push(std::thread::spawn(move || client.write(&url)));
        }
        let looks_on = look_on(play.database.as_superuser(), Arc::clone(&play.shared));
        play.looks_on = Some(looks_on);
        if load.kind.is_labelled() {
            let (url, shared) = (play.database.url.clone(), Arc::clone(&play.shared));
            play.labels = Some(label(url, shared, load.keys, Random(random.next())));
        }
        play
    }

    /// Runs the program as far as a goal, and kills and pauses it as the load says.
    pub fn to(&mut self, goal: &str) -> Ran {
        self.drive((goal, &["--to", goal]))
    }

    fn drive(&mut self, (goal, to): (&str, &[&str])) -> Ran {
        let began = Instant::now();
        if goal == "retire" {
            tell_of_retire(Arc::clone(&self.sandbox), Arc::clone(&self.shared));
        }
        let mut first = vec!["run", "plan.yaml"];
        loop {
            let mut command = self.sandbox.command(&first);
            command.args(to).env("FAILPOINTS", &self.failpoints);
            self.kills.lives.begins();
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            self.kills.kill(goal, (&self.sandbox, &mut child));
            if goal == "copy" && self.pauses_left > 0 {
                let lives = Duration::from_millis(60 + self.pauses.below(600));
                let is_over = wait_for(lives, || child.try_wait().unwrap().is_some());
                if !is_over && self.sandbox.run(&["pause", "load"]).code == Some(0) {
                    self.pauses_left -= 1;
                }
            }
            let ran = Ran::from(child.wait_with_output().unwrap());
            self.held_back += ran.stderr.matches("held back").count();
            first = vec!["run", "plan.yaml"];
            match ran.code {
                None => {}
                Some(8) => first = vec!["resume", "load"],
                // Two busy tables were not to be had together for two minutes, on a machine that has more to do: the step
                // gave way each time, said so in the end, and is asked for again. So does one that found keys noted each time.
                Some(1)
                    if ["55P03", "noted just now"].iter().any(|it| ran.stderr.contains(it))
                        && self.asks_left > 0 =>
                {
                    self.asks_left -= 1;
                    first = vec!["retry", "load"];
                }
                // TRUNCATE leaves the trace that row security would: both sides are compared once more.
                Some(6)
                    if self.load.truncates
                        && self.compared_again < 9
                        && ran.stderr.contains("since both sides were compared") =>
                {
                    self.compared_again += 1;
                    first = vec!["retry", "load"];
                }
                code => {
                    if goal == "copy" && code == Some(0) {
                        self.shared.copied.store(true, Ordering::SeqCst);
                    }
                    self.took.push((goal.to_owned(), began.elapsed()));
                    return ran;
                }
            }
        }
    }

    /// As [`to`](Self::to), which must go well.
    #[track_caller]
    fn reach(&mut self, goal: &str) {
        let ran = self.to(goal);
        self.went_well(&ran);
    }

    #[track_caller]
    fn went_well(&mut self, ran: &Ran) {
        if ran.code != Some(0) {
            let told = self.stop();
            let kind = self.load.kind;
            let (new, old) = (self.differing(&kind.compared()), self.differing(&kind.old_side()));
            let history = self.sandbox.run(&["history", "load"]);
            panic!(
                "{}: {ran}\nclients: {told:#?}\nnew side: {new:#?}\nold side: {old:#?}\n{}",
                self.case, history.stdout
            );
        }
    }

    /// Waits for clients to have done something, or to have something to tell.
    #[track_caller]
    fn wait_for(&self, what: &str, enough: impl Fn(&Shared) -> bool) {
        let enough = || enough(&self.shared);
        assert!(wait_for(Duration::from_mins(2), enough), "{}: {what} takes too long", self.case);
    }

    /// Waits until every transaction has ended that was open when the copy ended: their clients may delete what they can't see.
    fn drain(&self) {
        let now = self.database.value("SELECT clock_timestamp()");
        let older = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name = 'client' AND xact_start < '{now}'"
        );
        self.wait_for("the end of older transactions", |_| self.database.value(&older) == "0");
    }

    /// Clients stop. What they should not have seen, if there is something.
    pub fn stop(&mut self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.clients.drain(..).filter_map(|client| client.join().unwrap().err()).collect()
    }

    /// Rows of one query that aren't in the other, both ways.
    pub fn differing(&self, (ours, twin): &(String, String)) -> Vec<String> {
        let differing = |what: &str, one: &str, other: &str| {
            self.database.rows(&format!(
                "SELECT '{what}', * FROM (({one}) EXCEPT ALL ({other})) AS d ORDER BY 2 LIMIT 5"
            ))
        };
        let mut rows = differing("no client wrote", ours, twin);
        rows.extend(differing("went missing", twin, ours));
        rows
    }

    /// What clients choose in their first turns.
    pub fn chooses(mut self) -> BTreeMap<(usize, u64), String> {
        self.wait_for("the first turns", |s| s.chosen.lock().unwrap().len() >= 200);
        let told = self.stop();
        assert!(told.is_empty(), "{}: {told:#?}", self.case);
        self.shared.chosen.lock().unwrap().clone()
    }

    /// The whole play, at the end of which everything holds.
    pub fn through(mut self) {
        self.reach("sync");
        self.shared.new_shape.store(1, Ordering::SeqCst);
        self.copy();
        if self.load.truncates {
            self.wait_for("an emptied table", |s| s.has(&s.truncated, 1));
        }
        self.shared.settles.store(true, Ordering::SeqCst);
        self.drain();
        self.reach("compare");
        self.shared.settles.store(false, Ordering::SeqCst);
        self.shared.new_shape.store(2, Ordering::SeqCst);
        if self.load.kind.is_both() {
            let before = self.shared.of_new_shape.load(Ordering::SeqCst);
            self.wait_for("the new shape", |s| s.has(&s.of_new_shape, before + 60));
        }
        if self.load.ends {
            self.retire();
            let before = self.shared.retired.load(Ordering::SeqCst);
            self.wait_for("the time after retire", |s| s.has(&s.retired, before + 60));
            let ran = self.drive(("drop", &[]));
            self.went_well(&ran);
        }
        self.kills.kill_what_is_left(&self.sandbox);
        let told = self.stop();
        let seen = self.looks_on.take().unwrap().join().unwrap();
        let labels = self.labels.take().map_or(0, |labels| labels.join().unwrap());
        assert!(told.is_empty(), "{}: {told:#?}", self.case);
        if !self.load.ends {
            self.reach("compare-at-rest");
        }
        self.check_end();
        self.publish(&seen, labels);
        self.kills.check(self.load.kills, &self.case);
    }

    /// Puts the old shape aside, while clients have views from before.
    pub fn retire(&mut self) {
        self.reach("retire");
        self.see_views_end();
    }

    /// Waits for clients who had views from before to have come by name.
    pub fn see_views_end(&self) {
        self.shared.is_retired.store(true, Ordering::SeqCst);
        self.shared.retires.store(true, Ordering::SeqCst);
        let all = ASTRIDE.len() as u64;
        self.wait_for("the end of older views", |s| s.has(&s.straddled, all));
    }

    /// Copies, and is held back meanwhile where the load says so.
    fn copy(&mut self) {
        if !self.load.held {
            return self.reach("copy");
        }
        let random = Random(self.pauses.next());
        let hold = Hold::begin(&self.sandbox, &self.database.url, random);
        self.reach("copy");
        let (shut, said, case) = (hold.end(), self.held_back, &self.case);
        assert!(shut >= 2 && said >= 2, "{case}: held {shut} times, which was said {said} times");
    }

    fn check_end(&self) {
        let (kind, case) = (self.load.kind, &self.case);
        if self.load.ends {
            assert_eq!(self.differing(&kind.left()), [""; 0], "{case}");
            assert_eq!(
                self.database.ours(),
                ["phasegate.runs"],
                "{case}: something of ours is left"
            );
        } else {
            assert_eq!(self.differing(&kind.compared()), [""; 0], "{case}: the new side");
            assert_eq!(self.differing(&kind.old_side()), [""; 0], "{case}: the old side");
        }
        if kind.is_labelled() && self.load.ends {
            assert_eq!(self.differing(&labelled()), [""; 0], "{case}: what only the new table has");
        }
        for pair in kind.beside() {
            assert_eq!(self.differing(&pair), [""; 0], "{case}: beside the table");
        }
        self.sandbox.run(&["history", "load", "--verify"]).expect(0);
        if !self.load.kills.is_empty() {
            let copied =
                rows_done(&self.sandbox.run(&["status", "load", "--format", "json"]), "copy");
            chunks_were_once(&self.database, ("copy", copied));
        }
    }

    /// Says what clients saw, and that there was something to see.
    fn publish(&self, seen: &Seen, labels: u64) {
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let shared = &self.shared;
        let (commits, truncated) = (count(&shared.commits), count(&shared.truncated));
        let (prepared, large) = (count(&shared.prepared), count(&shared.large));
        let (rolled_back, looked) = (count(&shared.rolled_back), count(&shared.looked));
        let (straddled, own) = (count(&shared.straddled), count(&shared.wrote_astride));
        let told = shared.told.lock().unwrap().clone();
        let refused = shared.refused.lock().unwrap().clone();
        let (beside, contended) = (seen.beside.len(), seen.contended.len());
        let carried = if labels > 0 && self.load.ends {
            self.database.value(CARRIED)
        } else {
            "0".to_owned()
        };
        let took: Vec<String> = self
            .took
            .iter()
            .map(|(goal, took)| format!("{goal} {:.1}s", took.as_secs_f64()))
            .collect();
        // The test's output: figures to publish.
        #[allow(clippy::print_stderr)]
        {
            eprintln!(
                "{}: {commits} transactions of {CLIENTS} clients ({prepared} in two phases, {large} of the whole table, {truncated} \
                 emptied it), {rolled_back} rolled back; told {told:?}; refused like the twin {refused:?}; views astride of retire \
                 {straddled}, rows written under them {own}, looks by name {looked}; our transactions seen beside clients' {beside}, in each other's way {contended}; labelled {labels}, of which {carried} have another key now; \
                 killed {:?} ({}); held back {} times; compared again {} times; {}",
                self.case,
                self.kills.fell,
                self.kills.lives.told(),
                self.held_back,
                self.compared_again,
                took.join(", ")
            );
        }
        assert!(commits >= 100, "{}: only {commits} transactions of clients", self.case);
        assert!(beside >= 10, "{}: the copy and the clients hardly met", self.case);
        assert!(!self.load.ends || looked > 0, "{}: nobody looked by name", self.case);
        let looked_back = count(&shared.looked_back) > 0;
        assert!(!self.load.snapshots || looked_back, "{}: nobody looked back", self.case);
        assert!(!self.load.truncates || truncated > 0, "{}: never emptied", self.case);
        assert!(!self.load.kind.is_labelled() || labels > 0, "{}: nothing was labelled", self.case);
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            // The test has failed, and says why.
            let _ = client.join();
        }
        if let Some(looks_on) = self.looks_on.take() {
            let _ = looks_on.join();
        }
        if let Some(labels) = self.labels.take() {
            let _ = labels.join();
        }
    }
}
