//! Cypher, read as far as it takes to tell in which transaction a statement belongs and what it may destroy.
//!
//! Invariants:
//! - Where a word may be a clause or a name, it counts as the clause.
//! - What isn't known counts as *unknown*: procedures and functions that aren't on a list, and statements that begin with a word that
//!   isn't.
//!
//! The language is that of Neo4j 5, <https://neo4j.com/docs/cypher-manual/5/>. Absent on purpose: labels and properties, which need
//! no definition and so tell nothing that a plan could be held against.

use crate::run::Hazard;

use super::Dialect;
use super::facts::Facts;
use super::reader::Reader;
use super::token::{Kind, Token, tokens};

mod disguise;
mod expression;
mod functions;
mod set;

pub use expression::{ROW, plain_property, properties_read, quoted};

/// The transaction that a statement needs. The server refuses changes of schema and of data in one transaction
/// (`Neo.ClientError.Transaction.ForbiddenDueToTransactionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Any: it only reads.
    Reads,
    /// One that changes data.
    Data,
    /// One that changes indexes and constraints.
    Schema,
    /// None: it commits by itself, part after part.
    ByItself,
}

/// What a statement does to an index or a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    /// Whether there is one more afterwards, or one less.
    pub makes: bool,
    /// Whether it is about a constraint, and not an index.
    pub is_constraint: bool,
    /// Its name; the server gives one where the statement gives none.
    pub name: Option<String>,
    /// Whether it is fine where there is nothing to do: IF EXISTS, IF NOT EXISTS.
    pub is_lenient: bool,
}

/// Kinds of indexes.
const INDEXES: [&str; 7] = ["range", "text", "point", "lookup", "fulltext", "vector", "btree"];

/// Words that a statement which reads or writes data begins with.
const CLAUSES: [&str; 16] = [
    "match", "optional", "create", "insert", "merge", "unwind", "with", "return", "call", "load",
    "foreach", "finish", "set", "delete", "detach", "show",
];

/// Words that belong to what writes data.
const WRITING: [&str; 8] =
    ["create", "insert", "merge", "set", "delete", "detach", "remove", "foreach"];

/// Words that a statement about the server begins with.
const ADMINISTRATION: [&str; 13] = [
    "alter",
    "grant",
    "deny",
    "revoke",
    "start",
    "stop",
    "rename",
    "enable",
    "terminate",
    "deallocate",
    "reallocate",
    "dryrun",
    "drop",
];

/// Procedures that change nothing: <https://neo4j.com/docs/operations-manual/5/procedures/>.
const HARMLESS: [&str; 12] = [
    "db.labels",
    "db.relationshiptypes",
    "db.propertykeys",
    "db.awaitindex",
    "db.awaitindexes",
    "db.info",
    "db.ping",
    "db.schema.visualization",
    "db.schema.nodetypeproperties",
    "db.schema.reltypeproperties",
    "dbms.components",
    "dbms.info",
];

/// The transaction that a statement needs.
#[must_use]
pub fn section(statement: &str) -> Section {
    Reading::of(statement).map_or(Section::Data, |reading| reading.section())
}

/// What a statement does to an index or a constraint, if it does.
#[must_use]
pub fn schema_change(statement: &str) -> Option<SchemaChange> {
    Reading::of(statement)?.schema_change()
}

/// What a statement may destroy.
pub(super) fn classify(statement: &str) -> Facts {
    if let Some(why) = disguise::disguise(statement) {
        return Facts::unknown(format!("it has {why}"));
    }
    let Some(reading) = Reading::of(statement) else {
        return Facts::unknown("it can't be read");
    };
    reading.facts()
}

/// A statement's tokens behind what is only said of how it is to be run.
struct Reading<'a> {
    source: &'a str,
    all: Vec<Token>,
    begin: usize,
    names_graph: bool,
}

impl<'a> Reading<'a> {
    fn of(source: &'a str) -> Option<Self> {
        let all = tokens(Dialect::Cypher, source, 1).ok()?;
        let mut reading = Self { source, all, begin: 0, names_graph: false };
        let mut at = 0;
        if reading.is(at, "cypher") {
            at += 1;
            // A version, and settings as `key=value`.
            while reading.all.get(at).is_some_and(|it| it.kind == Kind::Word) {
                let is_setting = reading.is_punct(at + 1, "=");
                let is_number = reading.text(at).starts_with(|c: char| c.is_ascii_digit());
                match (is_setting, is_number) {
                    (true, _) => at += 3,
                    (false, true) => at += 1,
                    (false, false) => break,
                }
            }
        }
        if reading.is(at, "explain") || reading.is(at, "profile") {
            at += 1;
        }
        if reading.is(at, "use") {
            reading.names_graph = true;
            at += 2;
            while reading.is_punct(at, ".") {
                at += 2;
            }
        }
        reading.begin = at;
        Some(reading)
    }

    fn text(&self, at: usize) -> &'a str {
        self.all.get(at).map_or("", |token| token.text(self.source))
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.all.get(at).is_some_and(|token| token.is_word(self.source, word))
    }

    fn is_punct(&self, at: usize, punct: &str) -> bool {
        self.all.get(at).is_some_and(|token| token.is_punct(self.source, punct))
    }

    /// The name that a token may be.
    fn name(&self, at: usize) -> Option<String> {
        let token = self.all.get(at)?;
        matches!(token.kind, Kind::Word | Kind::Quoted).then(|| token.name(self.source))?
    }

    fn is_one(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    fn reader(&self) -> Reader<'_> {
        Reader::new(self.source, self.all.get(self.begin..).unwrap_or_default())
    }

    fn schema_change(&self) -> Option<SchemaChange> {
        let mut reader = self.reader();
        let makes = if reader.eats(&["create"]) {
            let _ = reader.eats(&["or", "replace"]);
            true
        } else if reader.eats(&["drop"]) {
            false
        } else {
            return None;
        };
        if makes {
            let _ = INDEXES.iter().any(|kind| reader.eats(&[kind]));
        }
        // `CREATE index = (…)` makes data: the path is called so.
        let is_constraint = !reader.eats(&["index"]);
        if is_constraint && !reader.eats(&["constraint"]) || reader.eats_punct("=") {
            return None;
        }
        let ends = |reader: &Reader<'_>| {
            ["if", "for", "on", "options"].iter().any(|word| reader.sees(word))
                || reader.is_at_end()
        };
        let name = if ends(&reader) { None } else { reader.name() };
        let is_lenient = reader.eats(&["if", "not", "exists"]) || reader.eats(&["if", "exists"]);
        Some(SchemaChange { makes, is_constraint, name, is_lenient })
    }

    /// Whether it is about databases, users and rights. A CREATE that makes data goes on with a pattern, which a path's name may
    /// stand in front of.
    fn administers(&self) -> bool {
        let at = self.begin;
        let makes_data = self.is_punct(at + 1, "(") || self.is_punct(at + 2, "=");
        self.is_one(at, &ADMINISTRATION)
            || self.is(at, "create") && !makes_data
            // `SHOW TRANSACTIONS … TERMINATE TRANSACTIONS …`
            || self.is(at, "show") && self.clauses().any(|at| self.is(at, "terminate"))
    }

    fn section(&self) -> Section {
        if self.schema_change().is_some() {
            return Section::Schema;
        }
        if self.clauses().any(|at| self.commits(at)) {
            return Section::ByItself;
        }
        let writes = |at| {
            self.is_one(at, &WRITING)
                || self.procedure(at).is_some_and(|name| !HARMLESS.contains(&&*name))
        };
        if self.clauses().any(writes) { Section::Data } else { Section::Reads }
    }

    /// Words that may be clauses.
    fn clauses(&self) -> impl Iterator<Item = usize> {
        (self.begin..self.all.len()).filter(|at| {
            self.all.get(*at).is_some_and(|it| it.kind == Kind::Word) && !self.is_name(*at)
        })
    }

    /// Whether a word is a name for sure: what follows a dot, a colon or a dollar is, and what a colon follows. What follows a `!` isn't:
    /// it may end a type (`IS :: STRING!`).
    fn is_name(&self, at: usize) -> bool {
        let is_behind = at.checked_sub(1).is_some_and(|before| {
            [".", ":", "$", "&"].iter().any(|punct| self.is_punct(before, punct))
        });
        is_behind || self.is_punct(at + 1, ":")
    }

    /// `IN TRANSACTIONS`, `IN 4 CONCURRENT TRANSACTIONS`.
    fn commits(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        self.is(at, "transactions")
            && before.is_some_and(|before| self.is_one(before, &["in", "concurrent"]))
    }

    /// The procedure that is called here, in lower case.
    fn procedure(&self, at: usize) -> Option<String> {
        if !self.is(at, "call") || self.is_punct(at + 1, "{") || self.is_punct(at + 1, "(") {
            return None;
        }
        let mut name = String::new();
        for token in self.all.get(at + 1..)? {
            let is_dot = token.is_punct(self.source, ".");
            if !is_dot && (token.kind == Kind::Punct || !(name.is_empty() || name.ends_with('.'))) {
                break;
            }
            name.push_str(&token.name(self.source).unwrap_or_else(|| ".".to_owned()));
        }
        Some(name.to_ascii_lowercase())
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::harmless();
        if self.names_graph {
            facts.complain(
                "a step works on the database that its target names",
                "remove USE, and name the database in the target's URL",
            );
        }
        let changes_schema = self.schema_change().is_some();
        if !changes_schema && self.administers() {
            facts.endanger(Hazard::Unknown("it is about the server and its databases".to_owned()));
            if self.is(self.begin, "drop") {
                facts.endanger(Hazard::Destructive("it drops what is not the plan's".to_owned()));
            }
            facts.complain(
                "this is about the server, and not about what is in the target's database",
                "do it outside of the plan",
            );
            return facts;
        }
        if !changes_schema && !self.is_one(self.begin, &CLAUSES) {
            let what = self.text(self.begin);
            facts.endanger(Hazard::Unknown(format!("it begins with {what}, which is not known")));
        }
        let names = set::Names::of(self);
        for at in self.clauses() {
            if self.is(at, "delete") || self.is(at, "detach") {
                facts.endanger(destructive("it deletes nodes or relationships"));
            } else if self.is(at, "remove") {
                facts.endanger(destructive("it removes properties or labels"));
            } else if self.is(at, "set") {
                set::judge(self, at, &names, &mut facts);
            } else if self.commits(at) {
                facts.outside_transaction =
                    Some("`CALL … IN TRANSACTIONS` commits by itself".to_owned());
            } else if let Some(name) = self.procedure(at)
                && !HARMLESS.contains(&&*name)
            {
                facts.endanger(calls(&name));
            }
        }
        for at in self.begin..self.all.len() {
            if let Some((begin, name)) = functions::called(self.source, &self.all, at)
                && !functions::is_own(&name)
                && !begin.checked_sub(1).is_some_and(|before| self.is(before, "call"))
            {
                facts.endanger(calls(&name));
            }
        }
        facts
    }
}

fn calls(name: &str) -> Hazard {
    Hazard::Unknown(format!("it calls {name}, and what that does is not known"))
}

fn destructive(what: &str) -> Hazard {
    Hazard::Destructive(what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::split;
    use super::*;

    #[test]
    fn what_may_destroy_is_told_from_what_only_adds() {
        let rank = |statement: &str| match classify(statement).hazard {
            Hazard::None => 0,
            Hazard::Unknown(_) => 1,
            Hazard::Destructive(_) => 2,
        };
        for (statement, expected) in [
            ("MATCH (n:Lead) RETURN count(n)", 0),
            ("CREATE (:Lead {id: 1, delete: 2})", 0),
            ("MATCH (n) WHERE n.delete = 1 RETURN n.remove", 0),
            ("MATCH (n:Delete)-[:REMOVE]->(:A&Detach) RETURN n", 0),
            ("MATCH (n) // DELETE n\n RETURN 'DETACH DELETE' /* REMOVE */", 0),
            ("MERGE (n:Lead {id: $id}) ON CREATE SET n = $row ON MATCH SET n.seen = 1", 0),
            ("MATCH (n) SET n += {x: 1}, n.y = 2, n:Old", 0),
            ("MATCH (n:Lead)\nSET n.`null` = 1", 0),
            ("MATCH (a)--(b) RETURN a", 0),
            ("CREATE INDEX x FOR (n:Lead) ON (n.id)", 0),
            ("DROP CONSTRAINT x IF EXISTS", 0),
            ("SHOW TRANSACTIONS", 0),
            ("CALL db.awaitIndexes(300)", 0),
            ("CYPHER 5 runtime=slotted MATCH (n) RETURN n", 0),
            ("CALL { MATCH (n) RETURN n } IN 2 CONCURRENT TRANSACTIONS RETURN 1", 0),
            ("MATCH (n:!Lead&!Old) RETURN n", 0),
            ("MATCH (cafe\u{301}) RETURN cafe\u{301}, '\u{200b}DELETE'", 0),
            ("MATCH (n) DELETE n", 2),
            ("MATCH (n:Lead) WHERE n.x IS :: STRING! DELETE n", 2),
            ("MATCH (n:Lead) WHERE n.x IS :: LIST<STRING!>! SET n = {}", 2),
            ("MATCH (n:Lead) WHERE n.x IS :: STRING! REMOVE n.x", 2),
            ("MATCH (n)\\u00a0DELETE\\u00a0n", 1),
            ("MATCH (n)\\u2003DELETE\\u2003n", 1),
            ("MATCH (n)\\u3000DETACH\\u3000DELETE n", 1),
            ("MATCH (caf\\u00e9) SET caf\\u00e9 = {}", 1),
            ("MATCH (`caf\\u00e9`) RETURN 1", 1),
            ("MATCH (n) // x\rDETACH DELETE n\nRETURN 1", 2),
            ("MATCH (n)\u{b}DETACH\u{1c}DELETE\u{1f}n", 2),
            ("MATCH (n) SET n.x =\u{b}null", 2),
            ("MATCH (cafe\u{301}) SET cafe\u{301} = {}", 2),
            ("MATCH (a\u{20ac}) SET a\u{20ac} = {}", 2),
            ("MATCH (n) \u{180e}DELETE n", 1),
            ("MATCH (n) \u{200b}SET\u{180e} n = {}", 1),
            ("CREATE index = (:A) WITH 1 AS x MATCH (n) DETACH DELETE n", 2),
            ("CREATE constraint = (:A) WITH 1 AS x MATCH (n) DETACH DELETE n", 2),
            ("CREATE INDEX x FOR (n:A) ON (n.b) WITH 1 AS x MATCH (n) DELETE n", 2),
            ("SHOW TRANSACTIONS YIELD transactionId AS id MATCH (n) DETACH DELETE n", 2),
            ("SHOW INDEXES YIELD name CALL apoc.nothing() RETURN name", 1),
            ("INSERT (:A)", 0),
            ("match (n) detach\tdelete n", 2),
            ("MATCH (n) DELETE\u{a0}n", 2),
            ("MATCH (n) NODETACH DELETE n", 2),
            ("MATCH (n) REMOVE n.x", 2),
            ("MATCH (n) FOREACH (x IN n.xs | DELETE x)", 2),
            ("CALL (n) { DETACH DELETE n } IN TRANSACTIONS", 2),
            ("MATCH (n) SET n = {x: 1}", 2),
            ("MATCH (n) SET n.a = 1, n = properties(n)", 2),
            ("MATCH (n) SET n.x = null", 2),
            ("MATCH (n) SET n.a = CASE WHEN true THEN 1 END, n.x = NULL RETURN n", 2),
            ("EXPLAIN MATCH (n) DELETE n", 2),
            ("CYPHER planner=cost MATCH (n) DELETE n", 2),
            ("USE other MATCH (n) DELETE n", 2),
            ("DROP DATABASE neo4j", 2),
            ("CREATE DATABASE x", 1),
            ("SHOW TRANSACTIONS YIELD transactionId AS id TERMINATE TRANSACTIONS id", 1),
            ("TERMINATE TRANSACTIONS 'neo4j-transaction-1'", 1),
            ("CALL apoc.periodic.iterate('MATCH (n) RETURN n', 'DELETE n', {})", 1),
            ("CALL `db`.labels() YIELD label CALL apoc.nothing() RETURN 1", 1),
            ("MATCH (n) RETURN acme.wipe(n)", 1),
            ("MATCH (n) RETURN `acme` . `wipe` (n)", 1),
            ("MATCH (n) WHERE apoc.text.join(n.xs, '') = 'x' RETURN n", 1),
            ("MATCH (n) WHERE n.at < datetime.transaction() RETURN point.distance(n.p, n.q)", 0),
            ("RETURN Date.Truncate('day', date()), duration.between(date(), date())", 0),
            ("MATCH (n) WHERE n.x IN (n.ys) AND (n)-[:A]->() RETURN n.x", 0),
            ("WHATEVER (n)", 1),
            ("RETURN 'a\\u0027 DELETE \\u0027'", 1),
            ("RETURN 'caf\\u00e9'", 0),
            ("MATCH (n) RETURN 'open", 1),
        ] {
            assert_eq!(rank(statement), expected, "{statement}");
        }
    }

    #[test]
    fn each_statement_has_its_transaction() {
        for (statement, expected) in [
            ("MATCH (n) RETURN n", Section::Reads),
            ("SHOW INDEXES", Section::Reads),
            ("CALL db.labels()", Section::Reads),
            ("CALL apoc.whatever()", Section::Data),
            ("CREATE (n)", Section::Data),
            ("CREATE p = (a)-[:X]->(b)", Section::Data),
            ("MATCH (n) SET n.x = 1", Section::Data),
            ("CREATE index = (:A) WITH 1 AS x MATCH (n) DELETE n", Section::Data),
            ("SHOW INDEXES YIELD name MATCH (n) SET n.x = 1", Section::Data),
            ("MATCH (n) INSERT (:A)", Section::Data),
            ("CREATE FULLTEXT INDEX x FOR (n:A) ON EACH [n.x]", Section::Schema),
            ("DROP INDEX x", Section::Schema),
            ("MATCH (n) CALL (n) { SET n.x = 1 } IN TRANSACTIONS OF 10 ROWS", Section::ByItself),
            ("MATCH (n) CALL (n) { SET n.x = 1 } IN 3 CONCURRENT TRANSACTIONS", Section::ByItself),
        ] {
            assert_eq!(section(statement), expected, "{statement}");
        }
    }

    #[test]
    fn what_a_statement_does_to_the_schema_is_known_by_name() {
        let of = |makes, is_constraint, name: Option<&str>, is_lenient| {
            Some(SchemaChange { makes, is_constraint, name: name.map(str::to_owned), is_lenient })
        };
        let change = |makes, name, is_lenient| of(makes, false, name, is_lenient);
        for (statement, expected) in [
            ("CREATE INDEX a_b FOR (n:A) ON (n.b)", change(true, Some("a_b"), false)),
            (
                "create text index `my \u{e9}` if not exists for (n:A) on (n.b)",
                change(true, Some("my \u{e9}"), true),
            ),
            ("CREATE INDEX FOR (n:A) ON (n.b)", change(true, None, false)),
            (
                "CREATE CONSTRAINT IF NOT EXISTS FOR (n:A) REQUIRE n.b IS UNIQUE",
                of(true, true, None, true),
            ),
            ("DROP INDEX a_b", change(false, Some("a_b"), false)),
            ("DROP CONSTRAINT c IF EXISTS", of(false, true, Some("c"), true)),
            ("CREATE (index)", None),
            ("CREATE constraint = (:A)", None),
            ("CREATE USER ann SET PASSWORD 'x'", None),
        ] {
            assert_eq!(schema_change(statement), expected, "{statement}");
        }
    }

    #[test]
    fn scripts_are_cut_where_cypher_ends_statements() {
        let script = "// one; two\nCREATE (:A {x: 'a;\\';b'});\n/* ; */ CREATE (:B {`x;``y`: \"it's; \\\"\"})\n;;\nMATCH (a)--(b) RETURN a;";
        let texts: Vec<(String, u32)> = split(Dialect::Cypher, script, 5)
            .unwrap()
            .into_iter()
            .map(|statement| (statement.text, statement.line))
            .collect();
        let expected = [
            ("CREATE (:A {x: 'a;\\';b'})", 6),
            ("CREATE (:B {`x;``y`: \"it's; \\\"\"})", 7),
            ("MATCH (a)--(b) RETURN a", 9),
        ];
        assert_eq!(texts, expected.map(|(text, line)| (text.to_owned(), line)));
        let error = split(Dialect::Cypher, "RETURN 1;\n:param x => 1\n", 1).unwrap_err();
        assert_eq!(
            (error.line, &*error.message),
            (2, ":param is a command of cypher-shell, and no Cypher")
        );
        let error = split(Dialect::Cypher, "RETURN 1;\nRETURN 'a\n;", 1).unwrap_err();
        assert_eq!(error.line, 2);
        assert_eq!(split(Dialect::Cypher, "// nothing", 1).unwrap(), []);
    }
}
