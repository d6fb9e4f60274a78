//! `window` and `unused_for` of a gate.

use std::collections::BTreeSet;

use chrono::{Datelike as _, NaiveDate};
use chrono_tz::{TZ_VARIANTS, Tz};

use crate::bounds::document::FREEZE_DAYS_MAX;
use crate::diagnostic::known as codes;
use crate::run::{Date, Freeze, Hours, Weekday, Window};

use super::super::document::{UnusedDef, UsedByDef};
use super::super::fields::{Fields, list, shown, text, word};
use super::super::node::{At, Kind, Node, Span};
use super::super::reports::Reports;
use super::super::suggest::nearest;

/// The days as plans write them.
const DAYS: &[(&str, Weekday)] = &[
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

/// The times at which a gate may open.
pub fn window(node: &Node, reports: &mut Reports) -> Option<Window> {
    let fields = Fields::open(node, "`window`", &["days", "hours", "zone", "freezes"], reports)?;
    let days = match fields.get("days") {
        Some(node) => days(node, reports),
        None => Some(Weekday::ALL.into_iter().collect()),
    };
    let hours = match fields.get("hours") {
        Some(node) => hours(node, reports),
        None => Some(vec![Hours::ALL_DAY]),
    };
    let freezes = match fields.get("freezes") {
        Some(node) => freezes(node, reports),
        None => Some(Vec::new()),
    };
    let zone = fields.required_text("zone", reports).and_then(|zone| known_zone(zone, reports));
    let (days, hours, freezes, zone) = (days?, hours?, freezes?, zone?);
    if days.len() == Weekday::ALL.len() && hours == [Hours::ALL_DAY] && freezes.is_empty() {
        reports
            .error(codes::NO_CONDITIONS, node.span, "the window is always open")
            .help("add `days`, `hours` or `freezes`, or remove it");
    }
    let spans = freezes.iter().map(|(dates, _)| *dates).collect();
    if let Some((from, to)) = longest_gap(spans, &days) {
        let span = fields.key_span("freezes");
        let message = format!("the window never opens from {from} to {to}");
        reports.error(codes::NEVER_MET, span, message).help(
            "freeze at most a year at a time: mend the dates, or shut the gate by a rejection",
        );
    }
    let freezes = freezes.into_iter().map(|(_, freeze)| freeze).collect();
    Some(Window { days, hours, zone, freezes })
}

fn days(node: &Node, reports: &mut Reports) -> Option<BTreeSet<Weekday>> {
    let items = list(node, "`days`", reports)?;
    if items.is_empty() {
        never(node.span, "no day is one of none", "name the days: `[mon, tue]`", reports);
        return None;
    }
    let days: Vec<_> = items.iter().map(|item| word(item, "days", DAYS, reports)).collect();
    days.into_iter().map(|day| day.map(|at| at.value)).collect()
}

fn never(span: Span, message: &str, help: &str, reports: &mut Reports) {
    reports.error(codes::NEVER_MET, span, message).help(help);
}

/// One range or several.
fn hours(node: &Node, reports: &mut Reports) -> Option<Vec<Hours>> {
    let Kind::List(items) = &node.kind else {
        return Some(vec![range(node, reports)?]);
    };
    if items.is_empty() {
        never(node.span, "no hour is one of none", "write `22:00-06:00`", reports);
        return None;
    }
    let ranges: Vec<_> = items.iter().map(|item| range(item, reports)).collect();
    ranges.into_iter().collect()
}

fn range(node: &Node, reports: &mut Reports) -> Option<Hours> {
    let written = text(node, "`hours`", reports)?;
    let parsed = written.value.split_once('-').and_then(|(from, to)| {
        let (from, to) = (minute(from.trim())?, minute(to.trim())?);
        (from < 1_440).then_some(Hours { from, to })
    });
    let Some(hours) = parsed else {
        let message = format!("`{}` is no range of hours", shown(&written.value));
        reports
            .error(codes::OUT_OF_RANGE, written.span, message)
            .help("write two times from 00:00 to 24:00, such as `22:00-06:00`");
        return None;
    };
    if hours.from == hours.to {
        never(
            written.span,
            "these hours end as they begin",
            "write `00:00-24:00` for all of a day",
            reports,
        );
        return None;
    }
    // An end at midnight is the end of the same day.
    Some(if hours.to == 0 { Hours { to: 1_440, ..hours } } else { hours })
}

/// Minutes since midnight, from `HH:MM`; 24:00 is the day's end.
fn minute(written: &str) -> Option<u16> {
    let (hour, minute) = written.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= 1_440).then_some(all)
}

fn known_zone(zone: At<String>, reports: &mut Reports) -> Option<String> {
    if zone.value.parse::<Tz>().is_ok() {
        return Some(zone.value);
    }
    let message = format!("there is no time zone `{}`", shown(&zone.value));
    let help = match nearest_zone(&zone.value) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name one of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    reports.error(codes::UNKNOWN_WORD, zone.span, message).help(help);
    None
}

/// The zone that was likely meant; also by its city alone.
fn nearest_zone(typed: &str) -> Option<&'static str> {
    let known: Vec<&'static str> = TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
    let city = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let by_city = known.iter().find(|name| city(name).eq_ignore_ascii_case(typed));
    by_city.copied().or_else(|| nearest(typed, &known))
}

/// Days with their dates for reckoning.
type Frozen = ((NaiveDate, NaiveDate), Freeze);

fn freezes(node: &Node, reports: &mut Reports) -> Option<Vec<Frozen>> {
    let items = list(node, "`freezes`", reports)?;
    let freezes: Vec<_> = items.iter().map(|item| freeze(item, reports)).collect();
    freezes.into_iter().collect()
}

/// A date, two dates with `..` between, or `{ from, to, reason }`.
fn freeze(node: &Node, reports: &mut Reports) -> Option<Frozen> {
    let (from, to, reason) = match &node.kind {
        Kind::Map(_) => {
            let fields = Fields::open(node, "a freeze", &["from", "to", "reason"], reports)?;
            let from = fields.required_text("from", reports);
            let to = fields.text("to", reports);
            let reason = fields.text("reason", reports).map(|reason| reason.value);
            let from = from?;
            let to = to.unwrap_or_else(|| from.clone());
            (from, to, reason)
        }
        _ => {
            let written = text(node, "a freeze", reports)?;
            let (from, to) = match written.value.split_once("..") {
                Some((from, to)) => (from.trim().to_owned(), to.trim().to_owned()),
                None => (written.value.clone(), written.value.clone()),
            };
            let span = written.span;
            (At { value: from, span }, At { value: to, span }, None)
        }
    };
    let dates = (date(&from, reports), (from.value != to.value).then(|| date(&to, reports)));
    let first = dates.0?;
    let last = dates.1.unwrap_or(Some(first))?;
    if last < first {
        let message = format!("the freeze ends on {last}, before it begins on {first}");
        reports.error(codes::OUT_OF_RANGE, to.span, message).help("write the earlier day first");
        return None;
    }
    let iso = |date: NaiveDate| Date::new(date.format("%Y-%m-%d").to_string());
    Some(((first, last), Freeze { from: iso(first), to: iso(last), reason }))
}

fn date(written: &At<String>, reports: &mut Reports) -> Option<NaiveDate> {
    let parsed = written.value.parse::<NaiveDate>().ok();
    let parsed = parsed.filter(|date| {
        (1970..=2999).contains(&date.year()) && date.format("%Y-%m-%d").to_string() == written.value
    });
    if parsed.is_none() {
        let message = format!("`{}` is no date", shown(&written.value));
        reports
            .error(codes::OUT_OF_RANGE, written.span, message)
            .help("write a day that there is, such as `2026-12-24`, or two with `..` between");
    }
    parsed
}

/// A stretch of days in which no hours begin and which is too long to be meant.
fn longest_gap(
    mut freezes: Vec<(NaiveDate, NaiveDate)>,
    days: &BTreeSet<Weekday>,
) -> Option<(NaiveDate, NaiveDate)> {
    freezes.sort_unstable();
    let is_day = |date: NaiveDate| {
        days.contains(&Weekday::ALL[date.weekday().num_days_from_monday() as usize % 7])
    };
    // Two freezes are one where none of the days between them is one of the window's.
    let joins = |end: NaiveDate, begin: NaiveDate| {
        let between = end.iter_days().skip(1).take(7).take_while(|date| *date < begin);
        begin <= end || !between.into_iter().any(is_day)
    };
    let mut merged: Option<(NaiveDate, NaiveDate)> = None;
    for (from, to) in freezes {
        merged = match merged {
            Some((begin, end)) if joins(end, from) => Some((begin, end.max(to))),
            _ => Some((from, to)),
        };
        let is_too_long =
            |(from, to): &(NaiveDate, NaiveDate)| (*to - *from).num_days() >= FREEZE_DAYS_MAX;
        if let Some(gap) = merged.filter(is_too_long) {
            return Some(gap);
        }
    }
    None
}

/// Something that must have been unused.
pub fn unused_for(node: &Node, reports: &mut Reports) -> Option<UnusedDef> {
    const KEYS: &[&str] = &["mapping", "target", "query", "for"];
    let fields = Fields::open(node, "`unused_for`", KEYS, reports)?;
    fields.required("for", reports);
    let for_ms = fields.duration("for", reports);
    let mapping = fields.text("mapping", reports);
    let query = fields.text("query", reports);
    let target = fields.text("target", reports);
    let by = match (mapping, query) {
        (Some(mapping), None) if fields.get("target").is_none() => UsedByDef::Counters(mapping),
        (None, Some(query)) => UsedByDef::Query { target, query },
        (None, None) if fields.get("mapping").is_none() && fields.get("query").is_none() => {
            reports.error(codes::MISSING_KEY, node.span, "it isn't said how uses are seen").help(
                "add `mapping`, whose old table's counters are read, or `target` and `query`",
            );
            return None;
        }
        (None, None) => return None,
        (Some(_), _) => {
            reports
                .error(codes::KEYS_CONFLICT, node.span, "uses are seen by counters or by a query")
                .help("keep `mapping`, or keep `target` and `query`");
            return None;
        }
    };
    Some(UnusedDef { by, for_ms: for_ms? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_two_digits_twice() {
        for (written, minutes) in [
            ("00:00", Some(0)),
            ("23:59", Some(1_439)),
            ("24:00", Some(1_440)),
            ("24:01", None),
            ("9:00", None),
            ("09:60", None),
            ("+9:00", None),
            ("0900", None),
        ] {
            assert_eq!(minute(written), minutes, "{written}");
        }
    }

    #[test]
    fn a_city_or_a_slip_leads_to_its_zone() {
        for (typed, meant) in [
            ("Berlin", Some("Europe/Berlin")),
            ("Europe/Berlni", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("Nowhere", None),
        ] {
            assert_eq!(nearest_zone(typed), meant, "{typed}");
        }
    }

    #[test]
    fn freezes_are_too_long_only_where_nothing_opens_between_them() {
        let day = |iso: &str| iso.parse::<NaiveDate>().unwrap();
        let years = |from: &str, to: &str| (day(from), day(to));
        let all: BTreeSet<Weekday> = Weekday::ALL.into_iter().collect();
        let sunday = BTreeSet::from([Weekday::Sun]);
        let two = vec![years("2026-01-01", "2026-11-20"), years("2026-11-23", "2027-06-01")];
        // The 22nd of November 2026 is a Sunday.
        assert_eq!(longest_gap(two.clone(), &all), None);
        assert_eq!(longest_gap(two.clone(), &sunday), None);
        let monday = BTreeSet::from([Weekday::Mon]);
        assert!(longest_gap(two, &monday).is_some());
        assert!(longest_gap(vec![years("2026-01-01", "2027-01-02")], &all).is_some());
    }
}
