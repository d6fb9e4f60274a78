//! Several runners at once: of runs that have nothing in common, and of one run on two machines.

use super::{Bed, HEAD, MOVE, did, mentions, step};
use crate::sandbox::Ran;
use crate::services;

#[test]
fn two_runs_of_disjoint_tables_that_begin_at_once_go_side_by_side() {
    let plan = |table: &str| {
        let plan = step("", &format!("ALTER TABLE {table} ADD COLUMN note text"));
        HEAD.replace("name: leads", &format!("name: {table}")) + &plan
    };
    for _ in 0..3 {
        let Some(bed) = Bed::new("two runs at once", "") else { return };
        bed.run(&format!(
            "CREATE TABLE public.other (id int); ALTER TABLE public.other OWNER TO {}",
            bed.name
        ));
        let start = |table: &str| {
            bed.sandbox.write(&format!("{table}.yaml"), &plan(table));
            let (file, state) = (format!("{table}.yaml"), format!("{table}.db"));
            let mut run = bed.sandbox.command(&["--state", &state, "run", &file]);
            let run = run.env("APP_URL", bed.app()).stdout(std::process::Stdio::piped());
            run.stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let runs = [start("leads"), start("other")];
        for run in runs {
            Ran::from(run.wait_with_output().unwrap()).expect(0);
        }
        assert_eq!(bed.number("SELECT count(*) FROM phasegate.runs WHERE state = 'completed'"), 2);
    }
}

#[test]
fn where_teams_keep_state_in_postgresql_a_runner_killed_on_another_machine_is_followed_at_once() {
    let Some(bed) = Bed::new("another machine", MOVE) else { return };
    if !did("unshare", &["--uts", "true"]) {
        return services::not_run("another machine's name can't be had here");
    }
    let state = bed.app();
    let mut run = std::process::Command::new("unshare");
    let mut run = run
        .args(["--uts", "sh", "-c", "hostname elsewhere && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_phasegate"))
        .args(["--state", &state, "run", "plan.yaml"])
        .current_dir(bed.sandbox.path(""))
        .env("APP_URL", bed.app())
        .env("FAILPOINTS", "postgres::before-commit::chunk=5*off->1*sleep(60000)")
        .spawn()
        .unwrap();
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'state_leases'");
    bed.until("SELECT count(*) FROM phasegate.state_leases WHERE holder_host = 'elsewhere'");
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'chunks'");
    bed.until("SELECT count(*) FROM phasegate.chunks WHERE committed");
    let again = || bed.phasegate(&["--state", &state, "run", "plan.yaml"]);
    mentions(&again().expect(5), &["elsewhere"]);
    run.kill().unwrap();
    run.wait().unwrap();
    bed.until(
        "SELECT count(*) FROM phasegate.state_leases WHERE NOT EXISTS
         (SELECT FROM pg_stat_activity WHERE pid = session_pid)",
    );
    let still = "SELECT count(*) FROM phasegate.state_leases
        WHERE expires_ms > extract(epoch FROM clock_timestamp()) * 1000 + 3000";
    assert_eq!(bed.number(still), 1, "the lease was about to lapse by itself");
    again().expect(0);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 400);
}
