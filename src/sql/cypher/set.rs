//! What a SET may lose: properties that are taken away. One that is written over by a value that can't be null is not counted.
//!
//! Invariant: what isn't recognised may be null. A value counts as none only where all of it was read.

use std::collections::HashMap;
use std::ops::Range;

use crate::bounds::sql::CYPHER_NESTED_MAX;
use crate::run::Hazard;
use crate::sql::facts::Facts;
use crate::sql::token::Kind;

use super::{Reading, destructive, functions};

/// Words that end what is set, beside a bracket that closes.
const ENDS: [&str; 22] = [
    "match", "optional", "create", "insert", "merge", "unwind", "with", "return", "call", "load",
    "foreach", "finish", "set", "delete", "detach", "nodetach", "remove", "union", "on", "order",
    "skip", "limit",
];

/// Functions that have a value when called without arguments.
const OF_NOTHING: [&str; 10] = [
    "date",
    "datetime",
    "localdatetime",
    "localtime",
    "time",
    "timestamp",
    "rand",
    "randomuuid",
    "pi",
    "e",
];

/// Functions that are null only where an argument is.
const STRICT: [&str; 21] = [
    "abs",
    "ceil",
    "date",
    "datetime",
    "duration",
    "floor",
    "left",
    "localdatetime",
    "localtime",
    "lower",
    "ltrim",
    "replace",
    "reverse",
    "round",
    "rtrim",
    "time",
    "tolower",
    "tostring",
    "toupper",
    "trim",
    "upper",
];

/// Where the names of a statement stand first.
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    pub(super) fn of(reading: &Reading<'_>) -> Self {
        let mut first = HashMap::new();
        for at in 0..reading.all.len() {
            if let Some(name) = reading.name(at) {
                first.entry(name).or_insert(at);
            }
        }
        Self(first)
    }
}

/// Notes what the SET at a token may lose. Of what was made just now there is nothing to lose.
pub(super) fn judge(reading: &Reading<'_>, set: usize, names: &Names, facts: &mut Facts) {
    let made = making(reading, set);
    let is_made = |item: &Range<usize>| {
        let first = reading.name(item.start).and_then(|name| names.0.get(&name));
        made.is_some_and(|made| first.is_some_and(|first| (made + 1..set).contains(first)))
    };
    let ends = |at: &usize| closes(reading, *at) || is_clause(reading, *at);
    let all = reading.all.len();
    let end = outside(reading, set + 1..all).find(ends).unwrap_or(all);
    for item in parts(reading, set + 1..end).into_iter().filter(|item| !is_made(item)) {
        if let Some(hazard) = of_item(reading, item) {
            facts.endanger(hazard);
        }
    }
}

/// `n = …` takes away every property that isn't named, and a null the one that it is written to.
fn of_item(reading: &Reading<'_>, item: Range<usize>) -> Option<Hazard> {
    let whose = reading.name(item.start).filter(|_| item.start < item.end);
    let unread = || Some(Hazard::Unknown("what it sets can't be read".to_owned()));
    let first = item.start + 1;
    let Some(equals) = outside(reading, item.clone()).find(|at| reading.is_punct(*at, "=")) else {
        // A label is only added.
        let is_label = reading.is_punct(first, ":") || reading.is(first, "is");
        return if whose.is_some() && is_label && first < item.end { None } else { unread() };
    };
    let value = equals + 1..item.end;
    if whose.is_some() && equals == first {
        return Some(destructive("it replaces all properties of what it sets"));
    }
    if whose.is_some() && equals == first + 1 && reading.is_punct(first, "+") {
        return of_map(reading, item.start, value);
    }
    let is_property = reading.is_punct(first, ".") && equals == first + 2;
    let own = is_property.then_some((item.start, first + 1));
    if equals == item.start { unread() } else { of_value(reading, value, own) }
}

/// `n += {…}`: a null in the map takes a property away.
fn of_map(reading: &Reading<'_>, whose: usize, map: Range<usize>) -> Option<Hazard> {
    let last = map.end.saturating_sub(1);
    if !reading.is_punct(map.start, "{") || matching(reading, map.start, map.end) != Some(last) {
        return of_value(reading, map, None);
    }
    if map.start + 1 == last {
        return None;
    }
    parts(reading, map.start + 1..last)
        .into_iter()
        .filter_map(|entry| {
            let is_entry =
                reading.name(entry.start).is_some() && reading.is_punct(entry.start + 1, ":");
            let value = if is_entry { entry.start + 2..entry.end } else { entry.end..entry.end };
            of_value(reading, value, Some((whose, entry.start)))
        })
        .reduce(|one, other| crate::sql::facts::worst([one, other]))
}

/// What writing a value to a property may lose; `own` is the property: whose it is, and its name.
fn of_value(
    reading: &Reading<'_>,
    value: Range<usize>,
    own: Option<(usize, usize)>,
) -> Option<Hazard> {
    let solid = Solid { reading, own };
    if solid.is_value(value.clone(), CYPHER_NESTED_MAX) {
        return None;
    }
    // `IS NULL` and `IS NOT NULL` only ask.
    let is_null = |at: usize| {
        let before = |back: usize, word: &str| at >= back && reading.is(at - back, word);
        let asks = before(1, "is") || before(1, "not") && before(2, "is");
        let is_key = at >= 1 && reading.is_punct(at - 1, ".") || reading.is_punct(at + 1, ":");
        reading.is(at, "null") && !asks && !is_key
    };
    if value.clone().any(is_null) {
        return Some(destructive("it removes a property by setting it to null"));
    }
    let what = "what it sets a property to may be null, which removes the property";
    Some(Hazard::Unknown(what.to_owned()))
}

/// The clause in front of a SET that makes the variables which are first named in it, so that what they stand for has nothing to lose:
/// a MERGE with ON CREATE, or a CREATE.
fn making(reading: &Reading<'_>, set: usize) -> Option<usize> {
    let on_create = set >= 2 && reading.is(set - 2, "on") && reading.is(set - 1, "create");
    let mut before = (reading.begin..set).rev();
    if on_create {
        return before.find(|at| reading.is(*at, "merge") && !reading.is_name(*at));
    }
    before
        .find(|at| is_clause(reading, *at))
        .filter(|at| reading.is(*at, "create") && reading.is_punct(at + 1, "("))
        // Nothing but the pattern: another word may be a clause that gives names.
        .filter(|at| outside(reading, at + 1..set).all(|at| reading.name(at).is_none()))
}

fn is_clause(reading: &Reading<'_>, at: usize) -> bool {
    reading.is_one(at, &ENDS) && !reading.is_name(at)
}

/// Values that can't be null, but where a property of their own name was before.
struct Solid<'a> {
    reading: &'a Reading<'a>,
    /// The property that is written: whose it is, and its name. Made of itself it is null only where it was.
    own: Option<(usize, usize)>,
}

impl Solid<'_> {
    /// Whether a value can't be null: operands with signs between them.
    fn is_value(&self, value: Range<usize>, levels: u32) -> bool {
        let Some(levels) = levels.checked_sub(1) else { return false };
        let is_sign = |at: usize| ["+", "-"].iter().any(|sign| self.reading.is_punct(at, sign));
        let mut at = value.start;
        loop {
            while at < value.end && is_sign(at) {
                at += 1;
            }
            let Some(behind) = self.operand(at, value.end, levels) else { return false };
            if behind == value.end {
                return true;
            }
            let is_one = |it: &str| self.reading.is_punct(behind, it);
            if !["+", "-", "*", "/", "%", "^"].iter().any(|sign| is_one(sign)) {
                return false;
            }
            at = behind + 1;
        }
    }

    /// Behind an operand that can't be null.
    fn operand(&self, at: usize, end: usize, levels: u32) -> Option<usize> {
        let reading = self.reading;
        if at >= end {
            return None;
        }
        let is_number = |at: usize| reading.text(at).starts_with(|it: char| it.is_ascii_digit());
        let kind = reading.all.get(at)?.kind;
        let behind = match kind {
            Kind::Text => at + 1,
            Kind::Word if is_number(at) => {
                let has_fraction = reading.is_punct(at + 1, ".") && is_number(at + 2);
                if has_fraction { at + 3 } else { at + 1 }
            }
            Kind::Word if reading.is_one(at, &["true", "false"]) => at + 1,
            Kind::Word if reading.is(at, "case") => self.case(at, end, levels)?,
            _ if self.is_own(at) => at + 3,
            Kind::Word if self.asks(at) => matching(reading, at + 1, end)? + 1,
            Kind::Word => self.call(at, end, levels)?,
            Kind::Punct => {
                let close = matching(reading, at, end)?;
                let inside = at + 1..close;
                let is_fine = match reading.text(at) {
                    "(" => self.is_value(inside, levels),
                    "[" => inside.is_empty() || self.are_values(inside, levels),
                    _ => false,
                };
                is_fine.then_some(close + 1)?
            }
            Kind::Quoted => return None,
        };
        (behind <= end).then_some(behind)
    }

    /// The property that is written, as it was: `n.x` in `n.x = n.x + 1`.
    fn is_own(&self, at: usize) -> bool {
        let Some((whose, property)) = self.own else { return false };
        let same = |one: usize, other: usize| {
            self.reading.name(one).is_some_and(|name| self.reading.name(other) == Some(name))
        };
        let goes_on = [".", "[", "("].iter().any(|it| self.reading.is_punct(at + 3, it));
        same(at, whose) && self.reading.is_punct(at + 1, ".") && same(at + 2, property) && !goes_on
    }

    /// `EXISTS { … }`, `COUNT { … }`. With anything but a pattern in it, this may be a variable's map.
    fn asks(&self, at: usize) -> bool {
        let has_pattern = self.reading.is_punct(at + 2, "(")
            || self.reading.is(at + 2, "match") && self.reading.is_punct(at + 3, "(");
        self.reading.is_one(at, &["exists", "count"])
            && self.reading.is_punct(at + 1, "{")
            && has_pattern
    }

    /// Behind a call that has a value.
    fn call(&self, at: usize, end: usize, levels: u32) -> Option<usize> {
        let (begin, name) = functions::called(self.reading.source, &self.reading.all, at)?;
        let close = matching(self.reading, at + 1, end)?;
        let arguments = at + 2..close;
        let has_value = if arguments.is_empty() {
            OF_NOTHING.contains(&&*name)
        } else if name == "coalesce" {
            let each = parts(self.reading, arguments);
            each.into_iter().any(|it| self.is_value(it, levels))
        } else {
            STRICT.contains(&&*name) && self.are_values(arguments, levels)
        };
        (begin == at && has_value).then_some(close + 1)
    }

    fn are_values(&self, values: Range<usize>, levels: u32) -> bool {
        parts(self.reading, values).into_iter().all(|it| self.is_value(it, levels))
    }

    /// Behind a CASE that ends with an ELSE, and has only values that can't be null. One inside it has brackets around it: its words may
    /// be names as well.
    fn case(&self, at: usize, end: usize, levels: u32) -> Option<usize> {
        let reading = self.reading;
        let mut value = None;
        let mut is_last = false;
        for at in outside(reading, at + 1..end).filter(|at| !reading.is_name(*at)) {
            if reading.is(at, "case") {
                return None;
            }
            if !reading.is_one(at, &["when", "then", "else", "end"]) {
                continue;
            }
            if let Some(begin) = value.take()
                && !self.is_value(begin..at, levels)
            {
                return None;
            }
            if reading.is(at, "end") {
                return is_last.then_some(at + 1);
            }
            is_last = reading.is(at, "else");
            value = (!reading.is(at, "when")).then_some(at + 1);
        }
        None
    }
}

fn opens(reading: &Reading<'_>, at: usize) -> bool {
    ["(", "[", "{"].iter().any(|it| reading.is_punct(at, it))
}

fn closes(reading: &Reading<'_>, at: usize) -> bool {
    [")", "]", "}"].iter().any(|it| reading.is_punct(at, it))
}

/// The tokens of a range that stand in no brackets; brackets that open there, and those that close what none of it opened, are of them.
fn outside<'a>(reading: &'a Reading<'_>, range: Range<usize>) -> impl Iterator<Item = usize> + 'a {
    let mut depth = 0_u32;
    range.filter(move |at| {
        let is_outside = depth == 0;
        if opens(reading, *at) {
            depth += 1;
        } else if closes(reading, *at) {
            depth = depth.saturating_sub(1);
        }
        is_outside
    })
}

/// The bracket that closes the one at a token, before `end`.
fn matching(reading: &Reading<'_>, at: usize, end: usize) -> Option<usize> {
    opens(reading, at).then_some(())?;
    outside(reading, at + 1..end).find(|at| closes(reading, *at))
}

/// What commas part, outside of brackets.
fn parts(reading: &Reading<'_>, range: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut begin = range.start;
    for comma in outside(reading, range.clone()).filter(|at| reading.is_punct(*at, ",")) {
        parts.push(begin..comma);
        begin = comma + 1;
    }
    parts.push(begin..range.end);
    parts
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use crate::run::Hazard;

    fn rank(statement: &str) -> u8 {
        match classify(statement).hazard {
            Hazard::None => 0,
            Hazard::Unknown(_) => 1,
            Hazard::Destructive(_) => 2,
        }
    }

    #[test]
    fn what_takes_properties_away_is_told_from_what_writes_them() {
        for (set, expected) in [
            ("n.x = 1, n.y = -1.5, n.z = 'a' + \"b\", n.on = true", 0),
            ("n.tags = [], n.more = ['a', 'b']", 0),
            ("n.x = n.x + 1, n.name = toUpper(trim(n.name))", 0),
            ("n.at = datetime(), n.day = date('2024-01-01') + duration('P1D')", 0),
            ("n.score = coalesce(n.old, m.old, 0)", 0),
            ("n.x = CASE n.a WHEN 'p' THEN 1 WHEN null THEN (2) ELSE 3 END, n.y = 2", 0),
            ("n.x = CASE WHEN n.a IS NULL THEN (CASE WHEN n.b THEN 1 ELSE 2 END) ELSE 3 END", 0),
            ("n.many = COUNT { (n)--() }, n.has = EXISTS { MATCH (n)-->(:A) }", 0),
            ("n += {x: 1, `null`: 'a', y: n.y + 1}", 0),
            ("n += {}", 0),
            ("n:Old, n IS Older", 0),
            ("n['a' + 'b'] = 1", 0),
            ("n.null = 1", 0),
            ("n.x = 1 WITH n RETURN n.null", 0),
            ("n += {email: null}", 2),
            ("n += {a: 1, email: NULL, b: 2}", 2),
            ("n.email = (null)", 2),
            ("n.email = CASE WHEN n.a THEN 'x' ELSE null END", 2),
            ("n.email = coalesce(n.a, null)", 2),
            ("n['email'] = null", 2),
            ("(CASE WHEN true THEN n END).email = null", 2),
            ("n.a = 1, n = {}", 2),
            ("n.email = CASE WHEN n.a THEN 'x' END", 1),
            ("n.email = CASE WHEN n.a = else + 1 THEN 'x' END", 1),
            ("n.email = CASE WHEN case THEN m.x WHEN end THEN 1 ELSE 2 END", 1),
            ("n.email = n.nosuch", 1),
            ("n.email = m.email", 1),
            ("n.email = n.email.year", 1),
            ("n.email = nullIf('a', 'a')", 1),
            ("n.email = toInteger('a')", 1),
            ("n.email = [1][1]", 1),
            ("n.email = [x IN n.gone | x]", 1),
            ("n.email = count {.x}", 1),
            ("n.email = $email", 1),
            ("n.email = x", 1),
            ("n.email = 'a' IN [m.x]", 1),
            ("n.email = 1 + match, m.x = 1", 1),
            ("n += $row", 1),
            ("n += properties(m)", 1),
            ("n += {x: n.y}", 1),
            ("n += {x: m.x}", 1),
            ("= 1", 1),
            ("n", 1),
            ("", 1),
        ] {
            let statement = format!("MATCH (n:Lead), (m) SET {set}");
            assert_eq!(rank(&statement), expected, "{statement}");
        }
        let deep = format!("MATCH (n) SET n.x = {}1{}", "(".repeat(50_000), ")".repeat(50_000));
        assert_eq!(rank(&deep), 1);
    }

    #[test]
    fn what_was_made_just_now_has_nothing_to_lose() {
        for (statement, expected) in [
            (
                "MERGE (n:Lead {id: $id}) ON CREATE SET n = $row, n.x = null ON MATCH SET n.seen = 1",
                0,
            ),
            ("MERGE (a)-[r:R]->(b) ON MATCH SET r.n = 1 ON CREATE SET r.n = m.x, b = {}", 0),
            ("MATCH (l:Lead) CREATE (k:LeadV2)-[r:OF]->(l) SET k = properties(l), r.x = l.x", 0),
            ("MATCH (m:Lead) MERGE (x:Once {id: 1}) ON CREATE SET m = {}", 2),
            ("MATCH (m:Lead) MERGE (x:Once {id: 1}) ON CREATE SET x.a = 1, m.email = null", 2),
            ("MATCH (m:Lead) MERGE (x:Once)-[:OF]->(m) ON CREATE SET m.email = m.gone", 1),
            ("MERGE (n:Lead {id: 1}) ON CREATE SET n.x = 1 ON MATCH SET n.x = null", 2),
            ("MATCH (k:Lead) CREATE (k)-[:R]->(:A) SET k = {}", 2),
            ("CREATE (k:A) WITH 1 AS one MATCH (k:Lead) SET k = {}", 2),
            ("MATCH (create), (m:Lead) SET m = {}", 2),
            ("MATCH (a:Lead) CREATE (k:A) LET m = a SET m = {}", 2),
            ("CREATE (k:A) SET k.x = 1 SET k = {}", 2),
        ] {
            assert_eq!(rank(statement), expected, "{statement}");
        }
    }
}
