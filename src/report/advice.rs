//! What to do next: one sentence on where a run stands, and the exact commands that help.

use crate::run::{
    self, Action, ConditionKind, ConditionVerdict, Direction, Ending, FailureClass, Observations,
    Progress, Standing, State, Step, Timestamp, Verify, Way, Winner,
};
use crate::store::Lease;

use super::paint::{Colour, Tone};
use super::steps::{failure_story, is_its_turn, is_to_paste};
use super::words;

/// How this program is called from where its reader stands: with the same settings, about the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program and the global options that were given, ready to paste.
    pub program: String,
    /// What names the run: its plan's name where that is enough, else its id.
    pub run: String,
}

impl CommandLine {
    /// A command as it is typed; `{run}` stands for the run.
    #[must_use]
    pub fn of(&self, command: &str) -> String {
        format!("{} {}", self.program, command.replace("{run}", &quoted(&self.run)))
    }

    /// A sentence whose commands leave the program, the run (`RUN`) and the plan's file (`PLAN`) open, with these in their places.
    #[must_use]
    pub fn filled(&self, text: &str, path: &str) -> String {
        let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(|word| {
            let name = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            let rest = &word[name.len()..];
            match name {
                "RUN" => quoted(&self.run) + rest,
                "PLAN" => quoted(path) + rest,
                _ => word.to_owned(),
            }
        });
        words.collect::<String>().replace("`phasegate ", &format!("`{} ", self.program))
    }

    /// The command that goes on with the run: by its plan's file, as it was given.
    #[must_use]
    pub fn go_on(&self, state: &State) -> String {
        self.of(&format!("run {}", quoted(&state.pin().path)))
    }
}

/// A word as a shell reads it as one.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,~".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command that helps, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// As it is typed.
    pub command: String,
    /// What it does.
    pub purpose: String,
}

/// Where a run stands and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// One sentence.
    pub sentence: String,
    /// Whether that is good or bad.
    pub tone: Tone,
    /// What helps, the most likely first.
    pub suggestions: Vec<Suggestion>,
}

impl Advice {
    /// The suggestions as lines.
    #[must_use]
    pub fn lines(&self, colour: Colour) -> String {
        let width = self.suggestions.iter().map(|one| one.command.chars().count()).max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for one in &self.suggestions {
            let command = colour.paint(Tone::Strong, &format!("{:<width$}", one.command));
            text.push_str("  ");
            text.push_str(&command);
            text.push_str("   ");
            text.push_str(&one.purpose);
            text.push('\n');
        }
        text
    }
}

/// Where a run as a whole stands, in the words that documents use.
#[must_use]
pub fn standing(state: &State, driver: Option<&Lease>) -> &'static str {
    match state.standing() {
        Standing::Ended { ending: Ending::Completed, .. } => return "completed",
        Standing::Ended { ending: Ending::RolledBack, .. } => return "rolled_back",
        Standing::Ended { ending: Ending::Aborted, .. } => return "aborted",
        Standing::Forward | Standing::Back | Standing::Aborting { .. } => {}
    }
    if state.paused().is_some() {
        return "paused";
    }
    match trouble(state).map(|(_, progress)| progress) {
        Some(Progress::Ambiguous { .. }) => return "ambiguous",
        Some(Progress::Differs) => return "differs",
        Some(_) => return "failed",
        None => {}
    }
    match state.standing() {
        Standing::Back => "rolling_back",
        Standing::Aborting { .. } => "aborting",
        _ if driver.is_some() => "running",
        _ if shut_gates(state).next().is_some() => "waiting",
        _ => "stopped",
    }
}

/// The step that keeps the run from going on, the worst first.
pub(super) fn trouble(state: &State) -> Option<(&Step, &Progress)> {
    let with = |wanted: fn(&Progress) -> bool| {
        let mut steps = state.program().steps().iter();
        steps.find_map(|step| {
            let progress = &state.step(&step.id).progress;
            wanted(progress).then_some((step, progress))
        })
    };
    with(|progress| matches!(progress, Progress::Ambiguous { .. }))
        .or_else(|| with(|progress| matches!(progress, Progress::Failed { .. })))
        .or_else(|| with(|progress| matches!(progress, Progress::Differs)))
}

/// Gates whose turn it is and that haven't opened.
pub fn shut_gates(state: &State) -> impl Iterator<Item = &Step> {
    state.program().steps().iter().filter(|step| {
        matches!(step.action, Action::Gate(_))
            && !state.is_applied(&step.id)
            && is_its_turn(state, step)
            && matches!(state.standing(), Standing::Forward)
    })
}

/// What to say of a run. `driver` is the lease of whoever drives it now, if anybody does; `now` is the store's clock.
#[must_use]
pub fn advise(state: &State, driver: Option<&Lease>, line: &CommandLine, now: Timestamp) -> Advice {
    let mut advice = of_standing(state, driver, line, now);
    let goes_forward = *state.standing() == Standing::Forward;
    if goes_forward && run::beyond_return(state).next().is_some() {
        let (back, leave) =
            (line.of("rollback {run}"), line.of("abort {run} --leave --reason 'why'"));
        for one in advice.suggestions.iter_mut().filter(|one| one.command == back) {
            *one = suggestion(
                leave.clone(),
                "ends the run, and leaves what is done: it can't go back",
            );
        }
    }
    advice
}

fn of_standing(
    state: &State,
    driver: Option<&Lease>,
    line: &CommandLine,
    now: Timestamp,
) -> Advice {
    let name = format!("The run of plan {}", state.program().plan());
    match state.standing() {
        Standing::Ended { ending, at } => return ended(state, *ending, *at, line),
        Standing::Forward | Standing::Back | Standing::Aborting { .. } => {}
    }
    if let Some(lease) = driver {
        return driven(&name, lease, line, now);
    }
    if let Some(pause) = state.paused() {
        let reason = pause.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        return Advice {
            sentence: format!("{name} is paused{reason}."),
            tone: Tone::Warn,
            suggestions: vec![
                suggestion(line.of("resume {run}"), "goes on"),
                suggestion(line.of("rollback {run}"), "goes back"),
            ],
        };
    }
    if let Some((step, progress)) = trouble(state) {
        return troubled(state, step, progress, line);
    }
    match state.standing() {
        Standing::Back => Advice {
            sentence: format!("{name} is going back, and nobody drives it."),
            tone: Tone::Warn,
            suggestions: vec![suggestion(line.of("rollback {run} --yes"), "goes on going back")],
        },
        Standing::Aborting { .. } => Advice {
            sentence: format!("{name} is being given up, and nobody drives it."),
            tone: Tone::Warn,
            suggestions: vec![suggestion(line.of("abort {run}"), "finishes that")],
        },
        _ => waiting(state, &name, line, now),
    }
}

fn suggestion(command: String, purpose: &str) -> Suggestion {
    Suggestion { command, purpose: purpose.to_owned() }
}

fn ended(state: &State, ending: Ending, at: Timestamp, line: &CommandLine) -> Advice {
    let plan = state.program().plan();
    let took = words::duration(at.since_ms(state.started_at()));
    let again = line.of(&format!("run {} --new", quoted(&state.pin().path)));
    let tone = if ending == Ending::Completed { Tone::Good } else { Tone::Warn };
    Advice {
        sentence: format!(
            "The run of plan {plan} is {}, after {took}.",
            match ending {
                Ending::Completed => "complete",
                Ending::RolledBack => "rolled back",
                Ending::Aborted => "aborted",
            }
        ),
        tone,
        suggestions: vec![
            suggestion(line.of("status {run}"), "every step once more"),
            suggestion(
                line.of("history {run} --verify"),
                "who did what, checked against the targets",
            ),
            suggestion(again, "starts another run"),
        ],
    }
}

fn driven(name: &str, lease: &Lease, line: &CommandLine, now: Timestamp) -> Advice {
    let holder = &lease.holder;
    Advice {
        sentence: format!(
            "{name} is being driven by {} (pid {} on {}) since {}.",
            holder.name,
            holder.pid,
            holder.host,
            words::duration(now.since_ms(lease.since)),
        ),
        tone: Tone::Good,
        suggestions: vec![
            suggestion(line.of("status {run} --watch"), "shows how it goes"),
            suggestion(line.of("pause {run}"), "stops it before its next chunk or step"),
        ],
    }
}

fn troubled(state: &State, step: &Step, progress: &Progress, line: &CommandLine) -> Advice {
    let id = &step.id;
    let retry = suggestion(line.of("retry {run}"), "tries it again, once the cause is gone");
    let amend = suggestion(
        line.of(&format!("amend {{run}} {}", quoted(&state.pin().path))),
        "puts a corrected plan in its place",
    );
    let rollback = suggestion(line.of("rollback {run}"), "goes back");
    let (sentence, suggestions) = match progress {
        Progress::Failed { way, failure } => {
            let what = match way {
                Way::Forward => "failed",
                Way::Back => "could not be undone",
            };
            let back = matches!(way, Way::Back);
            let suggestions = if back {
                let lost = step.action.mapping().filter(|_| failure.class == FailureClass::Unsafe);
                let gives_up = lost.map(|name| {
                    let command = line.of(&format!("rollback {{run}} --accept-loss {name}"));
                    suggestion(command, "goes back, and gives up what only the new side has")
                });
                let leave = line.of("abort {run} --leave --reason 'why'");
                let leave =
                    suggestion(leave, "ends the run instead, and leaves what is not undone");
                [Some(retry), gives_up, Some(leave)].into_iter().flatten().collect()
            } else if state.step(id).may_be_done && step.action.changes_data() {
                // What has begun is not amended.
                vec![retry, rollback]
            } else {
                vec![retry, amend, rollback]
            };
            // No full stop behind what is pasted.
            let pastes = failure.detail.as_deref().is_some_and(is_to_paste);
            let (end, gap) = if pastes { ("", "\n") } else { (".", " ") };
            let help = failure.help.as_ref().map_or_else(String::new, |help| {
                let help = line.filled(help, &state.pin().path);
                format!("{gap}What helps: {}.", sentence_of(&help))
            });
            let line = failure_story(failure);
            (format!("Step {id} {what}: {}{end}{help}", sentence_of(&line)), suggestions)
        }
        Progress::Ambiguous { way, detail } => (
            format!(
                "Nobody can tell whether step {id} was {}: {}.",
                if *way == Way::Back { "undone" } else { "done" },
                sentence_of(detail)
            ),
            vec![
                suggestion(
                    line.of(&format!("resolve {{run}} {id}")),
                    "what there is to go by, and how to say what came of it",
                ),
                suggestion(line.of("history {run}"), "what was tried, and when"),
                match way {
                    Way::Forward => suggestion(
                        line.of("rollback {run}"),
                        "goes back, and runs the step's own undo as if it had been done",
                    ),
                    Way::Back => suggestion(
                        line.of("abort {run} --leave --reason 'why'"),
                        "ends the run instead, and leaves what is not undone",
                    ),
                },
            ],
        ),
        _ => (
            format!("Verify {id} found differences.{}", left_to_people(state, step)),
            vec![
                suggestion(line.of("status {run}"), "how many, and which rows"),
                suggestion(line.of("retry {run}"), "compares again, once they are put right"),
                rollback,
            ],
        ),
    };
    Advice { sentence, tone: Tone::Bad, suggestions }
}

/// What to do about rows that no repair touches: with `both` either side's may be what a client meant.
fn left_to_people(state: &State, step: &Step) -> &'static str {
    let Action::Verify(Verify::Mapping { mapping, .. }) = &step.action else { return "" };
    let is_both = state.direction(mapping) == Some(Direction::Both);
    let has_winner =
        state.program().mappings().get(mapping).is_some_and(|it| it.winner == Winner::Old);
    if is_both && !has_winner {
        " Where they are left, clients of either side may have meant what is there: see for each row which side is right, \
         and INSERT, UPDATE or DELETE it on the other, from where the sync goes on. (A plan whose mapping says `winner: old` \
         from the start has `repair` do so by the old side.)"
    } else {
        ""
    }
}

/// A text that a full stop may follow.
fn sentence_of(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

/// What people have decided is known from the journal; what the targets say of a gate is not asked here.
fn waiting(state: &State, name: &str, line: &CommandLine, now: Timestamp) -> Advice {
    let gates: Vec<&Step> = shut_gates(state).collect();
    let Some(first) = gates.first() else {
        return Advice {
            sentence: format!("{name} can go on, and nobody drives it."),
            tone: Tone::Warn,
            suggestions: vec![
                suggestion(line.go_on(state), "goes on"),
                suggestion(line.of("rollback {run}"), "goes back"),
            ],
        };
    };
    let mut suggestions =
        vec![suggestion(line.of("gates {run}"), "what is missing, and what supplies it")];
    let report = run::report(state, &first.id, &Observations::default(), now);
    let lacks = |wanted: fn(&ConditionKind) -> bool| {
        let mut all = report.conditions.iter();
        all.any(|one| wanted(&one.kind) && one.verdict != ConditionVerdict::Pass)
    };
    if lacks(|kind| matches!(kind, ConditionKind::NotRejected)) {
        let revoke = line.of(&format!("revoke {{run}} {}", first.id));
        suggestions.push(suggestion(revoke, "takes a rejection back, by whoever rejected it"));
    }
    let has_parked = |step: &Step| state.step(&step.id).parked().is_some();
    if state.program().steps().iter().any(has_parked) {
        let show = line.of("status {run} --parked");
        suggestions.push(suggestion(show, "which rows could not be copied, and why"));
        let retry = line.of("retry {run}");
        suggestions.push(suggestion(retry, "tries them again, once they are mended"));
    }
    if lacks(|kind| matches!(kind, ConditionKind::Approvals(_))) {
        let show = line.of(&format!("gates {{run}} {} --show", first.id));
        suggestions.push(suggestion(show, "exactly what will run, and its digest"));
        let approve = line.of(&format!("approve {{run}} {}", first.id));
        suggestions.push(suggestion(
            approve,
            "shows that, asks and approves; --digest where nobody can be asked",
        ));
    }
    if suggestions.len() == 1 {
        // Nobody is missing: the next command is the one that goes on.
        suggestions.insert(0, suggestion(line.go_on(state), "goes on, if all else holds"));
    } else {
        suggestions.push(suggestion(line.go_on(state), "goes on once it holds"));
    }
    let names: Vec<&str> = gates.iter().map(|gate| gate.id.as_str()).collect();
    let noun = if names.len() == 1 { "gate" } else { "gates" };
    Advice {
        sentence: format!("{name} waits at {noun} {}.", names.join(", ")),
        tone: Tone::Warn,
        suggestions,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_would_split_them() {
        assert_eq!(quoted("plans/quickstart.yaml"), "plans/quickstart.yaml");
        assert_eq!(quoted("my plan.yaml"), "'my plan.yaml'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    use crate::report::fixture::{
        at, begun, done, evidence, failed, line, started, state, up_to_gate,
    };
    use crate::run::{Event, Verdict};

    fn advice(events: Vec<Event>) -> (&'static str, Advice) {
        let state = state(events);
        (standing(&state, None), advise(&state, None, &line(), at(100)))
    }

    fn has(advice: &Advice, command: &str) -> bool {
        advice.suggestions.iter().any(|one| one.command.starts_with(command))
    }

    #[test]
    fn a_failed_step_says_what_and_offers_every_way_on() {
        let (word, advice) = advice(vec![started(), begun("create"), failed("create")]);
        assert_eq!(word, "failed");
        assert_eq!(
            advice.sentence,
            "Step create failed: no such table: leads_v3 [SQLITE_ERROR] at line 7."
        );
        for command in [
            "phasegate retry leads",
            "phasegate amend leads plans/leads.yaml",
            "phasegate rollback leads",
        ] {
            assert!(has(&advice, command), "{command} in {advice:?}");
        }
    }

    #[test]
    fn statements_that_help_are_printed_to_be_pasted() {
        let mut event = failed("create");
        if let Event::StepFailed { failure, .. } = &mut event {
            failure.line = None;
            failure.detail = Some("CREATE INDEX ON a (b);\nALTER TABLE a ADD CHECK (b > 0)".into());
            failure.help = Some("run them".into());
        }
        let (_, advice) = advice(vec![started(), begun("create"), event]);
        assert_eq!(
            advice.sentence,
            "Step create failed: no such table: leads_v3 [SQLITE_ERROR]:\nCREATE INDEX ON a (b);\n\
             ALTER TABLE a ADD CHECK (b > 0);\nWhat helps: run them."
        );
    }

    #[test]
    fn a_shut_gate_offers_its_approval() {
        let (word, advice) = advice(up_to_gate());
        assert_eq!(word, "waiting");
        assert_eq!(advice.sentence, "The run of plan leads waits at gate ready.");
        for command in [
            "phasegate gates leads",
            "phasegate gates leads ready --show",
            "phasegate approve leads ready",
            "phasegate run plans/leads.yaml",
        ] {
            assert!(has(&advice, command), "{command} in {advice:?}");
        }
    }

    #[test]
    fn differences_come_before_everything_else() {
        let mut events = vec![started()];
        events.extend(done("create", None));
        events.push(begun("compare"));
        let evidence = evidence(Verdict::Fail, 3);
        events.push(Event::StepDiffers { step: "compare".into(), attempt: 1, evidence });
        let (word, advice) = advice(events);
        assert_eq!(word, "differs");
        assert!(has(&advice, "phasegate retry leads"), "{advice:?}");
    }

    #[test]
    fn pauses_and_ends_have_their_words() {
        let (word, paused) =
            advice(vec![started(), Event::Paused { reason: Some("lunch".into()) }]);
        assert_eq!(word, "paused");
        assert_eq!(paused.sentence, "The run of plan leads is paused (lunch).");
        let ending = crate::run::Ending::Completed;
        let (word, ended) = advice(vec![started(), Event::RunEnded { ending }]);
        assert_eq!(word, "completed");
        assert!(has(&ended, "phasegate run plans/leads.yaml --new"), "{ended:?}");
        let (word, stopped) = advice(vec![started()]);
        assert_eq!(word, "stopped");
        assert!(has(&stopped, "phasegate run plans/leads.yaml"), "{stopped:?}");
    }

    #[test]
    fn commands_name_the_run_and_keep_the_settings() {
        let line =
            CommandLine { program: "phasegate --env staging".into(), run: "leads-v2".into() };
        assert_eq!(line.of("gates {run}"), "phasegate --env staging gates leads-v2");
    }
}
