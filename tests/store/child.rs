//! A process of its own, for what can't be done to the one that runs the tests: being killed, having no room on its disk,
//! not being root. It is this same binary, told by a variable what to do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use phasegate::run::RunId;
use phasegate::store::{self, Create};

use super::sample::{ana, begin, paused};

const TASK: &str = "PHASEGATE_TEST_CHILD";
const PLACE: &str = "PHASEGATE_TEST_CHILD_PLACE";

/// What a child does with the store it is given.
#[derive(Clone, Copy)]
pub enum Task {
    /// Begins a run and appends to it for ever, and says each version that was acknowledged.
    Append,
    /// Opens it, begins a run, and says how each went.
    Try,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Try => "try",
        }
    }
}

/// Starts a child under a wrapper, such as a shell that sets a limit; `"$@"` in it is the child.
pub fn start(wrapper: &str, task: Task, place: &str) -> Child {
    Command::new("sh")
        .args(["-c", wrapper, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::child::play", "--nocapture", "--test-threads=1"])
        .env(TASK, task.name())
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child said, line by line, without the harness's own lines.
pub fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| line.split_once("child: ").map(|(_, said)| said.to_owned()))
}

fn say(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// What the child does. In the process that runs the tests there is no task.
#[tokio::test]
async fn play() {
    let Ok(task) = std::env::var(TASK) else { return };
    let place = std::env::var(PLACE).unwrap();
    match task.as_str() {
        "append" => append(&place).await,
        "try" => attempt(&place).await,
        other => panic!("no such task: {other}"),
    }
}

async fn append(place: &str) {
    let store = store::open(place, Create::IfMissing).await.unwrap();
    let run = begin(&store).await;
    say(run.as_str());
    for version in 1.. {
        let entries = store.append(&run, version, None, &ana(), vec![paused("x")]).await.unwrap();
        say(&entries[0].record.version.to_string());
    }
}

async fn attempt(place: &str) {
    let store = match store::open(place, Create::IfMissing).await {
        Ok(store) => store,
        Err(error) => return say(&format!("open {error:?}")),
    };
    say("opened");
    let run: RunId = match store.runs().await {
        Ok(runs) if !runs.is_empty() => runs[0].run.clone(),
        Ok(_) => begin(&store).await,
        Err(error) => return say(&format!("runs {error:?}")),
    };
    let version = match store.read(&run, 0, 100_000).await {
        Ok(entries) => u64::try_from(entries.len()).unwrap(),
        Err(error) => return say(&format!("read {error:?}")),
    };
    say("read");
    // Some records of 64 KiB each: more than a child with a limit has room for.
    let text = "x".repeat(64 * 1024);
    for version in (version..).take(64) {
        if let Err(error) = store.append(&run, version, None, &ana(), vec![paused(&text)]).await {
            say(&format!("append {version} {error:?}"));
            let kept = store.read(&run, 0, 100_000).await.unwrap();
            return say(&format!("kept {}", kept.len()));
        }
    }
    say("appended");
}
