//! Windows: the local times at which a gate may open.
//!
//! What counts is what a clock on the wall of that zone shows: an hour that is skipped in spring opens nothing, one that comes
//! twice in autumn opens twice. A range over midnight belongs to the day on which it begins, and a frozen day shuts both what
//! begins on it and what reaches into it.
//!
//! Absent on purpose: time zones. Whoever asks turns a moment into a [`LocalTime`] first.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// When a gate may open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The days on which its hours begin; never empty.
    pub days: BTreeSet<Weekday>,
    /// The hours of those days; never empty.
    pub hours: Vec<Hours>,
    /// The time zone by its name in the IANA database, such as `Europe/Berlin`.
    pub zone: String,
    /// The days on which it stays shut all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A range of the day in minutes since midnight; the end is not part of it. An end before the start lies on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// Where it begins: 0 to 1439.
    pub from: u16,
    /// Where it ends: 1 to 1440, and never where it begins.
    pub to: u16,
}

/// A date, written `2026-12-24`; dates compare as their texts do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Date(String);

impl Date {
    /// A date from its ISO form, which the caller has checked.
    #[must_use]
    pub fn new(iso: impl Into<String>) -> Self {
        Self(iso.into())
    }

    /// `2026-12-24`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Days on which nothing opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The first.
    pub from: Date,
    /// The last.
    pub to: Date,
    /// Why.
    pub reason: Option<String>,
}

/// A moment as the clocks of a zone show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The day.
    pub date: Date,
    /// The day before it.
    pub eve: Date,
    /// The day of the week.
    pub weekday: Weekday,
    /// Minutes since midnight.
    pub minute: u16,
}

/// What was found of a window at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSeen {
    /// Why it is shut; none while it is open.
    pub shut: Option<String>,
    /// When that changes, and how that moment is written in its zone; none if it doesn't within ten years.
    pub changes: Option<(Timestamp, String)>,
}

impl Weekday {
    /// All days in order.
    pub const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// As plans write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    /// The day before.
    #[must_use]
    pub const fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }
}

impl Hours {
    /// The whole day.
    pub const ALL_DAY: Self = Self { from: 0, to: 1_440 };

    /// Whether it ends on the day after the one it began on.
    #[must_use]
    pub const fn is_over_midnight(self) -> bool {
        self.to < self.from
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| (minute / 60, minute % 60);
        let ((from_hour, from), (to_hour, to)) = (clock(self.from), clock(self.to));
        write!(f, "{from_hour:02}:{from:02}-{to_hour:02}:{to:02}")
    }
}

impl Window {
    /// Why it is shut at a moment; none when it is open.
    #[must_use]
    pub fn shut_at(&self, at: &LocalTime) -> Option<String> {
        if let Some(freeze) = self.freeze_on(&at.date) {
            return Some(freeze.words());
        }
        let mut frozen_eve = None;
        for hours in &self.hours {
            let is_behind_start = at.minute >= hours.from;
            let begins = self.days.contains(&at.weekday) && is_behind_start;
            if begins && (hours.is_over_midnight() || at.minute < hours.to) {
                return None;
            }
            let reaches = hours.is_over_midnight()
                && at.minute < hours.to
                && self.days.contains(&at.weekday.before());
            match self.freeze_on(&at.eve) {
                Some(freeze) if reaches => frozen_eve = Some(freeze.words()),
                None if reaches => return None,
                _ => {}
            }
        }
        Some(frozen_eve.unwrap_or_else(|| "these are not its hours".to_owned()))
    }

    fn freeze_on(&self, date: &Date) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.from <= *date && *date <= freeze.to)
    }

    /// The minutes of a day at which it may open or shut.
    #[must_use]
    pub fn edges(&self) -> BTreeSet<u16> {
        let edges = self.hours.iter().flat_map(|hours| [hours.from, hours.to]);
        // The day's end is the next one's beginning.
        edges.filter(|minute| *minute < 1_440).chain([0]).collect()
    }
}

impl Freeze {
    fn words(&self) -> String {
        let days = if self.from == self.to {
            self.from.as_str().to_owned()
        } else {
            format!("{} to {}", self.from.as_str(), self.to.as_str())
        };
        match &self.reason {
            Some(reason) => format!("frozen {days}: {reason}"),
            None => format!("frozen {days}"),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = self.days.iter().map(|day| day.as_str()).collect();
        if days.len() == Weekday::ALL.len() {
            f.write_str("every day")?;
        } else {
            f.write_str(&days.join(", "))?;
        }
        if self.hours != [Hours::ALL_DAY] {
            let hours: Vec<String> = self.hours.iter().map(ToString::to_string).collect();
            write!(f, " {}", hours.join(", "))?;
        }
        write!(f, " in {}", self.zone)?;
        match self.freezes.len() {
            0 => Ok(()),
            1 => f.write_str(", but for a freeze"),
            count => write!(f, ", but for {count} freezes"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn window(days: &[Weekday], hours: &[(u16, u16)], freezes: &[(&str, &str)]) -> Window {
        Window {
            days: days.iter().copied().collect(),
            hours: hours.iter().map(|(from, to)| Hours { from: *from, to: *to }).collect(),
            zone: "UTC".into(),
            freezes: freezes
                .iter()
                .map(|(from, to)| Freeze {
                    from: Date::new(*from),
                    to: Date::new(*to),
                    reason: None,
                })
                .collect(),
        }
    }

    fn at(date: &str, eve: &str, weekday: Weekday, minute: u16) -> LocalTime {
        LocalTime { date: Date::new(date), eve: Date::new(eve), weekday, minute }
    }

    /// Friday the 20th and Saturday the 21st of November 2026.
    fn friday(minute: u16) -> LocalTime {
        at("2026-11-20", "2026-11-19", Weekday::Fri, minute)
    }

    fn saturday(minute: u16) -> LocalTime {
        at("2026-11-21", "2026-11-20", Weekday::Sat, minute)
    }

    #[test]
    fn an_end_is_not_part_of_its_hours() {
        let office = window(&[Weekday::Fri], &[(540, 960)], &[]);
        for (minute, is_open) in [(539, false), (540, true), (959, true), (960, false)] {
            assert_eq!(office.shut_at(&friday(minute)).is_none(), is_open, "{minute}");
        }
        assert!(office.shut_at(&saturday(600)).is_some());
        let all = window(&Weekday::ALL, &[(0, 1_440)], &[]);
        assert_eq!(all.shut_at(&friday(1_439)), None);
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_they_begin_on() {
        let night = window(&[Weekday::Fri], &[(1_320, 360)], &[]);
        for (at, is_open) in [
            (friday(0), false),
            (friday(359), false),
            (friday(1_319), false),
            (friday(1_320), true),
            (saturday(0), true),
            (saturday(359), true),
            (saturday(360), false),
            (saturday(1_320), false),
        ] {
            assert_eq!(night.shut_at(&at).is_none(), is_open, "{at:?}");
        }
    }

    #[test]
    fn a_frozen_day_shuts_what_begins_on_it_and_what_reaches_into_it() {
        let days = [Weekday::Fri, Weekday::Sat];
        let frozen = |day| window(&days, &[(1_320, 360)], &[(day, day)]);
        let friday_off = frozen("2026-11-20");
        assert!(friday_off.shut_at(&friday(1_400)).unwrap().contains("frozen 2026-11-20"));
        assert!(friday_off.shut_at(&saturday(100)).unwrap().contains("frozen 2026-11-20"));
        assert_eq!(friday_off.shut_at(&saturday(1_400)), None);
        let saturday_off = frozen("2026-11-21");
        assert_eq!(saturday_off.shut_at(&friday(1_400)), None);
        assert!(saturday_off.shut_at(&saturday(100)).is_some());
    }

    #[test]
    fn a_window_says_when_it_is_open() {
        let night = window(&[Weekday::Fri, Weekday::Sat], &[(1_320, 360)], &[]);
        assert_eq!(night.to_string(), "fri, sat 22:00-06:00 in UTC");
        let but = window(&Weekday::ALL, &[(0, 1_440)], &[("2026-12-24", "2026-12-26")]);
        assert_eq!(but.to_string(), "every day in UTC, but for a freeze");
    }
}
