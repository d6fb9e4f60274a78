//! The registry of codes: one line each, and a page under `docs/codes/` that `phasegate explain CODE` shows.
//!
//! Ranges: P1 reading, P2 names and order, P3 mappings, P4 statements, P5 gates, P6 the life of a mapping, P7 projects and
//! policy, P8 secrets and files, P9 not yet; D2 what a target lacks, found by a driver that looks before the first change; R1 what a dry run warns of. To add
//! one: a line here and a page there, in the same form (a test looks). A code that is no longer found keeps its line and page.

use std::fmt;

use serde::{Serialize, Serializer};

/// A stable code such as `P107`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    /// The code as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// What it is about, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        entry(self.0).map_or("", |entry| entry.title)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

struct Entry {
    code: Code,
    title: &'static str,
    page: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal;)*) => {
        /// The codes by name.
        pub mod constants {
            use super::Code;
            $(#[doc = $title] pub const $name: Code = Code($code);)*
        }

        /// Every code, in order.
        const ENTRIES: &[Entry] = &[$(Entry {
            code: Code($code),
            title: $title,
            page: include_str!(concat!("../../docs/codes/", $code, ".md")),
        },)*];
    };
}

codes! {
    SYNTAX = "P101", "the file is not YAML";
    NOT_UTF8 = "P102", "the file is not UTF-8";
    TOO_LARGE = "P103", "the file is too large";
    EMPTY = "P104", "the file is empty";
    SEVERAL_DOCUMENTS = "P105", "several documents in one file";
    TOO_DEEP = "P106", "nested too deeply, or too many values";
    DUPLICATE_KEY = "P107", "a key written twice";
    MERGE_KEY = "P108", "a merge key";
    TAG = "P109", "a tag";
    ALIAS = "P110", "an alias that leads nowhere or to itself";
    AMBIGUOUS = "P111", "a value that YAML readers read differently";
    UNKNOWN_KEY = "P112", "an unknown key";
    MISSING_KEY = "P113", "a key is missing";
    WRONG_TYPE = "P114", "a value of the wrong kind";
    UNKNOWN_WORD = "P115", "not one of the words";
    BAD_NAME = "P116", "not a usable name";
    BAD_DURATION = "P117", "not a duration";
    OUT_OF_RANGE = "P118", "a number out of range";
    CUT_EXPRESSION = "P119", "an expression cut at its comma";
    WRONG_KIND = "P120", "not this kind of document";
    ONE_ACTION = "P121", "a step has exactly one action";
    KEYS_CONFLICT = "P122", "keys that can't stand together, or not alone";
    DUPLICATE_ID = "P201", "two steps of one id";
    CYCLE = "P202", "steps that need each other";
    LATER_PHASE = "P203", "a need on a later phase";
    PHASE_ORDER = "P204", "steps not in the order of their phases";
    UNKNOWN_STEP = "P205", "a step that isn't there";
    UNKNOWN_TARGET = "P206", "a target that isn't there";
    UNKNOWN_MAPPING = "P207", "a mapping that isn't there";
    NEEDS_NOTHING = "P208", "a later step that needs nothing";
    NO_TARGET = "P209", "no target";
    UNUSED = "P210", "defined and never used";
    TOO_MANY_STEPS = "P211", "too many steps";
    NO_STEPS = "P212", "no steps";
    KEY_LENGTHS = "P301", "keys of different length";
    KEY_COLUMN = "P302", "a key column that can't serve";
    EXPRESSION = "P303", "an expression that can't be read";
    NO_WAY_BACK = "P304", "no way back for a column";
    IN_PLACE = "P305", "not possible in place";
    NO_COLUMNS = "P306", "no columns";
    REVERSE_UNUSED = "P307", "`reverse` without a way back";
    MAPPING_SIDES = "P308", "sides that don't go together";
    UNKNOWN_COLUMN = "P309", "a column that the mapping doesn't carry";
    UNREADABLE_SQL = "P401", "statements that can't be split";
    STATEMENT_NOT_ALLOWED = "P402", "a statement that may not stand in a step";
    NO_UNDO = "P403", "no undo";
    UNDO_CONFLICT = "P404", "`undo` that doesn't belong here";
    NOTHING_TO_UNDO = "P405", "nothing to undo";
    NO_GATE = "P406", "a destructive step without a gate";
    NO_VERIFY = "P407", "a destructive step without a verify";
    NO_VERIFIED_WITHIN = "P408", "a gate that takes evidence of any age";
    DESTRUCTIVE_EARLY = "P409", "a destructive step outside contract";
    UNKNOWN_STATEMENT = "P410", "a statement whose effect can't be told";
    TOUCHES_LIVE_SYNC = "P411", "a statement that breaks a live dual-write";
    NO_STATEMENTS = "P412", "no statements";
    REVIEWED_UNUSED = "P413", "`reviewed` where nothing asks for it";
    NOT_A_QUESTION = "P414", "a query that does more than ask";
    OUTSIDE_TRANSACTION = "P415", "a statement that can't run in a transaction";
    TRANSACTION_UNUSED = "P416", "`transaction: none` without need";
    LOST_ANSWER = "P417", "a statement whose outcome can't be looked up";
    LONG_LOCK = "P418", "a lock held while all rows are gone through";
    LONG_NAME = "P419", "a name that is cut";
    CASCADE = "P420", "CASCADE";
    NEVER_MET = "P501", "a wait that can never be met";
    EXPIRES_TOO_SOON = "P502", "approvals that expire before the gate can open";
    NO_EVIDENCE = "P503", "`verified_within` with nothing verified";
    NO_CONDITIONS = "P504", "a gate without conditions";
    CAPTURE = "P505", "a captured value that isn't there";
    TIMEOUT_TOO_SHORT = "P506", "a timeout shorter than what it bounds";
    SAME_GROUP_TWICE = "P507", "a group asked twice in one gate";
    USES_UNSEEN = "P508", "uses that counters can't show";
    THROTTLE = "P509", "a throttle that can't work";
    BACKFILL_BEFORE_SYNC = "P601", "a backfill that isn't behind its dual-write";
    VERIFY_BEFORE_BACKFILL = "P602", "a verify that isn't behind its backfill";
    RETIRE_WITHOUT_GATE = "P603", "a retire without a gate";
    RETIRE_WITHOUT_VERIFY = "P604", "a retire without a full verify";
    DROP_WITHOUT_RETIRE = "P605", "a drop without a retire";
    VERIFY_AFTER_RETIRE = "P606", "a verify of sides that have parted";
    TWICE = "P607", "done twice";
    NOTHING_TO_END = "P608", "nothing to end, retire or drop";
    SYNC_NEVER_ENDS = "P609", "a dual-write that the plan never ends";
    BACKFILL_UNDO = "P610", "a backfill that may overwrite";
    RETIRE_SHAPE = "P611", "a retire of the wrong shape";
    WRONG_TARGET = "P612", "the mapping is on another target";
    WRITTEN_TWICE = "P613", "a column that two mappings write";
    NOBODY_WRITES = "P614", "a dual-write that nothing does";
    STUBS = "P615", "relationships copied before their nodes";
    POLICY = "P701", "the plan contradicts the environment's policy";
    UNKNOWN_GROUP = "P702", "a group that isn't there";
    GROUP_TOO_SMALL = "P703", "more approvals than the group has people";
    UNKNOWN_ENVIRONMENT = "P704", "an environment that isn't there";
    NOT_IN_PRODUCTION = "P705", "not in production";
    CLAIMED_COUNT = "P706", "claimed names can't make up this count";
    LITERAL_SECRET = "P801", "a secret written out";
    BAD_REFERENCE = "P802", "a reference that can't be resolved";
    UNREADABLE_FILE = "P803", "a file that can't be read";
    URL = "P804", "a URL that doesn't fit";
    NO_URL = "P805", "no URL";
    ENGINE_NOT_YET = "P901", "an engine that comes later";
    ACTION_NOT_YET = "P902", "an action that comes later";
    MAPPING_NOT_YET = "P903", "a mapping that comes later";
    OPTION_NOT_YET = "P904", "an option that comes later";
    CONDITION_NOT_YET = "P905", "a condition that comes later";
    NO_PROGRAM = "P906", "a fault of phasegate";
    NO_TABLE = "D201", "a table isn't there";
    NOT_A_TABLE = "D202", "not an ordinary table";
    NO_COLUMN = "D203", "a column isn't there";
    NO_IDENTITY = "D204", "a key that doesn't identify rows";
    REFUSED_EXPRESSION = "D205", "an expression that the database refuses";
    NO_VALUE = "D206", "a column that gets no value";
    OTHER_TYPE = "D207", "values that another type would change";
    STRICTER_UNIQUE = "D208", "a stricter UNIQUE";
    STRICTER_NULL = "D209", "a stricter NOT NULL";
    REFUSED_QUERY = "D210", "a query that the database refuses";
    NO_SYNC = "D211", "a sync that can't be kept";
    NO_RIGHT = "D212", "a right that the role lacks";
    HIDDEN_ROWS = "D213", "rows that the role can't see";
    STRICTER_CHECK = "D214", "a stricter check or foreign key";
    UNSTEADY = "D215", "an expression that is not immutable";
    SEQUENCE = "D216", "the sequence behind a copied key";
    NOT_BROUGHT = "D217", "what the new table doesn't have";
    TRIGGERS = "D218", "triggers that fire for what we write";
    KEPT_DIFFERENTLY = "D219", "a table that is kept or used differently";
    NO_INVERSE = "D220", "a way back that doesn't lead back";
    OVERLAP = "D221", "a column that two mappings write";
    NO_FORM = "D222", "a value that the other database has nothing for";
    MAY_FAIL = "D223", "an expression that may fail a client's write";
    UNFIT = "D224", "rows whose values the other database can't hold";
    KEY_NOT_SERVED = "R102", "a key that no index serves";
    NO_ROOM = "R103", "no room for the copy";
    DEPENDENTS = "R104", "something depends on what goes";
    IN_THE_WAY = "R105", "somebody is in the way now";
    FEW_CONNECTIONS = "R106", "few connections are left";
}

fn entry(code: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.code.0.eq_ignore_ascii_case(code))
}

/// The code that somebody typed, in either case.
#[must_use]
pub fn code(typed: &str) -> Option<Code> {
    entry(typed).map(|entry| entry.code)
}

/// Every code, in order.
pub fn all() -> impl Iterator<Item = Code> {
    ENTRIES.iter().map(|entry| entry.code)
}

/// The page of a code, as Markdown: what it means, why, a bad and a good example.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    entry(code).map(|entry| entry.page)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_with_reasons_and_both_examples() {
        for entry in ENTRIES {
            let page = explain(entry.code.as_str()).unwrap();
            let heading = format!("# {}: {}\n", entry.code, entry.title);
            assert!(page.starts_with(&heading), "{page}");
            let (why, examples) = page.split_once("\nBad:\n").unwrap();
            assert!(why.len() > heading.len() + 30, "{} says too little", entry.code);
            let (bad, good) = examples.split_once("\nGood:\n").unwrap();
            assert!(bad.contains("```yaml") && good.contains("```yaml"), "{}", entry.code);
            assert_ne!(bad.trim(), good.trim());
        }
    }

    #[test]
    fn codes_are_unique_and_ascending_in_their_range() {
        let codes: Vec<&str> = all().map(Code::as_str).collect();
        let mut sorted = codes.clone();
        sorted.dedup();
        assert_eq!(codes, sorted);
        assert!(codes.iter().all(|c| c.len() == 4 && c.starts_with(['P', 'D', 'R', 'S'])));
    }

    #[test]
    fn every_page_belongs_to_a_code() {
        let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/codes")).unwrap();
        for page in pages {
            let name = page.unwrap().file_name().into_string().unwrap();
            assert!(code(name.trim_end_matches(".md")).is_some(), "{name} explains no code");
        }
    }

    #[test]
    fn a_typed_code_may_be_in_lower_case_and_an_unknown_one_is_none() {
        assert_eq!(code("p107"), Some(constants::DUPLICATE_KEY));
        assert_eq!(code("P999"), None);
    }
}
