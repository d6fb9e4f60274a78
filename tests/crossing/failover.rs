//! A source that is followed by a standby which lacks its last transactions, when the graph has them already.

use super::bed::{Bed, LONG, NOTES};
use crate::bad_input::standby::{catch_up, takes_over};
use crate::bad_luck_postgres::server::Server;
use crate::sandbox::wait_for;

const TABLE: &str = "CREATE TABLE notes (id int PRIMARY KEY, text text);
    INSERT INTO notes SELECT g, 'note ' || g FROM generate_series(1, 100) AS g;";

/// What is compared opens a gate, behind which nothing is carried any more.
const READY: &str = "  - id: ready
    phase: contract
    gate:
      approvals: [{ group: dba, count: 1 }]
      verified_within: 1h
";

#[test]
fn what_the_graph_has_and_the_promoted_source_has_lost_is_found_before_the_gate_opens() {
    let test = "a source that loses what it has told";
    let Some(primary) = Server::new(test) else { return };
    let Some(bed) = Bed::on(test, &primary.url, TABLE) else { return };
    let [mappings, steps] = NOTES;
    let (before, behind) = steps.split_once("  - id: stop\n").unwrap();
    bed.plan(&format!("{mappings}steps:\n{before}{READY}  - id: stop\n{behind}"));
    let standby = Server::following(&primary.url);
    bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    catch_up(&primary, &standby);
    standby.control(&["-m", "fast", "stop"]);
    // Of this the standby hears no more, and the graph does.
    bed.database.run("INSERT INTO notes VALUES (1000, 'told'); UPDATE notes SET text = 'new' WHERE id = 7; DELETE FROM notes WHERE id = 8");
    bed.phasegate(&["run", "plan.yaml"]).expect(4);
    assert_eq!(bed.graph.number("MATCH (n:Note {id: 1000})"), 1);
    let shown = bed.phasegate(&["gates", "social-graph", "ready", "--show", "--format", "json"]);
    let work = shown.json()["gates"][0]["work"].as_str().unwrap().to_owned();
    let approve = ["approve", "social-graph", "ready", "--as", "dee", "--digest", &work];
    bed.phasegate(&approve).expect(0);
    bed.phasegate(&["gates", "social-graph", "ready"]).expect(0);

    takes_over(&standby, &primary);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(7);
    let said = format!("{ran}");
    assert!(said.contains("app may have lost its last transactions"), "{ran}");
    assert!(said.contains("compare: 1 missing, 1 extra, 1 different of "), "{ran}");
    assert!(bed.database.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") != "0");

    // A write to each of them in the source carries what it has.
    bed.database.run(
        "UPDATE notes SET text = 'changed' WHERE id IN (7, 8); UPDATE notes SET text = 'note ' || id WHERE id IN (7, 8);
         INSERT INTO notes VALUES (1000, 'once more'); DELETE FROM notes WHERE id = 1000",
    );
    let relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("notes")["carried_by"].is_string()));
    bed.is_synced();
    drop(relay);
    bed.phasegate(&["retry", "social-graph"]).expect(0);
    assert_eq!(bed.graph.number("MATCH (n:Note)"), 100);
    assert_eq!(bed.graph.number("MATCH (n:Note {id: 7, text: 'note 7'})"), 1);
}
