//! Functions by their names. One without a dot is the server's own: others can't be made there.

use crate::sql::token::{Kind, Token};

/// The server's own functions whose names have dots, in lower case: <https://neo4j.com/docs/cypher-manual/5/functions/>.
const OWN: [&str; 15] = [
    "datetime.fromepoch",
    "datetime.fromepochmillis",
    "db.namefromelementid",
    "duration.between",
    "duration.indays",
    "duration.inmonths",
    "duration.inseconds",
    "graph.byelementid",
    "graph.byname",
    "graph.names",
    "graph.propertiesbyname",
    "point.distance",
    "point.withinbbox",
    "vector.similarity.cosine",
    "vector.similarity.euclidean",
];

/// What can be asked of each type of time, behind its name and a dot.
const OF_TIME: [&str; 4] = ["realtime", "statement", "transaction", "truncate"];

/// Types of time. Called without arguments they mean the present moment.
pub(super) const TIMES: [&str; 5] = ["date", "datetime", "localdatetime", "localtime", "time"];

/// The function whose name ends at a token, in lower case, and where its name begins.
pub(super) fn called(source: &str, all: &[Token], at: usize) -> Option<(usize, String)> {
    let is_punct =
        |at: usize, punct: &str| all.get(at).is_some_and(|token| token.is_punct(source, punct));
    let part = |at: usize| {
        let token = all.get(at).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))?;
        token.name(source)
    };
    if !is_punct(at + 1, "(") {
        return None;
    }
    let (mut begin, mut name) = (at, part(at)?);
    while let Some(before) = begin.checked_sub(2)
        && is_punct(begin - 1, ".")
        && let Some(space) = part(before)
    {
        begin = before;
        name = format!("{space}.{name}");
    }
    Some((begin, name.to_lowercase()))
}

/// Whether a function is the server's own. What others do is not known.
pub(super) fn is_own(name: &str) -> bool {
    let Some((space, last)) = name.rsplit_once('.') else { return true };
    OWN.contains(&name) || TIMES.contains(&space) && OF_TIME.contains(&last)
}
