//! Quiet hours: windows of the week, in a time zone, in which little is sent.
//! Pure: the time comes in.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday as CivilWeekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::model::AlertLevel;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Weekday {
    const fn of(day: CivilWeekday) -> Self {
        match day {
            CivilWeekday::Monday => Self::Mon,
            CivilWeekday::Tuesday => Self::Tue,
            CivilWeekday::Wednesday => Self::Wed,
            CivilWeekday::Thursday => Self::Thu,
            CivilWeekday::Friday => Self::Fri,
            CivilWeekday::Saturday => Self::Sat,
            CivilWeekday::Sunday => Self::Sun,
        }
    }
}

/// A time in which only some levels are sent. What is held back is sent at its
/// end, if it still fires then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// When it begins, such as `22:00`.
    pub from: Time,
    /// When it ends, such as `07:00`; the next day if that is not later than
    /// `from`.
    pub to: Time,
    /// The days on which it begins; every day if none is named.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// Where these times are meant, as an IANA name such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The levels that are sent nevertheless.
    #[serde(default = "emergencies")]
    pub levels: Vec<AlertLevel>,
    /// The channels it holds for; all of them if none is named.
    #[serde(default)]
    pub channels: Vec<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn emergencies() -> Vec<AlertLevel> {
    vec![AlertLevel::Emergency]
}

impl QuietHours {
    pub(super) fn check(&self, field: &str, problems: &mut Vec<Problem>) {
        if TimeZone::get(&self.time_zone).is_err() {
            let detail = format!("must be a time zone such as Europe/Berlin, is {:?}", self.time_zone);
            problems.push(Problem { field: format!("{field}.time_zone"), detail });
        }
    }

    /// The window as one channel looks at it; `None` if it does not hold for it.
    pub(super) fn of_channel(&self, channel: &str) -> Option<Quiet> {
        let concerned = self.channels.is_empty() || self.channels.iter().any(|name| name == channel);
        let zone = TimeZone::get(&self.time_zone).unwrap_or(TimeZone::UTC);
        concerned.then(|| Quiet { hours: self.clone(), zone })
    }
}

/// Quiet hours with their time zone at hand.
#[derive(Debug, Clone)]
pub(super) struct Quiet {
    hours: QuietHours,
    zone: TimeZone,
}

impl Quiet {
    /// Whether nothing of this level is sent at this time.
    pub(super) fn holds(&self, level: AlertLevel, at: Timestamp) -> bool {
        let QuietHours { from, to, .. } = self.hours;
        if self.hours.levels.contains(&level) {
            return false;
        }
        let here = at.to_zoned(self.zone.clone());
        let (time, today) = (here.time(), here.date().weekday());
        if from < to {
            return from <= time && time < to && self.begins_on(today);
        }
        (from <= time && self.begins_on(today)) || (time < to && self.begins_on(today.previous()))
    }

    fn begins_on(&self, day: CivilWeekday) -> bool {
        self.hours.days.is_empty() || self.hours.days.contains(&Weekday::of(day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(json: serde_json::Value) -> Quiet {
        let hours: QuietHours = serde_json::from_value(json).unwrap();
        let mut problems = Vec::new();
        hours.check("q", &mut problems);
        assert_eq!(problems, []);
        hours.of_channel("any").unwrap()
    }

    fn holds(quiet: &Quiet, level: AlertLevel, at: &str) -> bool {
        quiet.holds(level, at.parse().unwrap())
    }

    #[test]
    fn a_window_may_go_over_midnight_and_belongs_to_the_day_it_begins_on() {
        // 2026-11-20 is a Friday.
        let friday = quiet(serde_json::json!({"from": "22:00", "to": "07:00", "days": ["fri"]}));
        let warning = AlertLevel::Warning;
        for (at, held) in [
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T06:59:59Z", true),
            ("2026-11-21T07:00:00Z", false),
            ("2026-11-21T23:00:00Z", false),
            ("2026-11-20T03:00:00Z", false),
        ] {
            assert_eq!(holds(&friday, warning, at), held, "{at}");
        }
        assert!(!holds(&friday, AlertLevel::Emergency, "2026-11-20T23:00:00Z"));
    }

    #[test]
    fn the_time_is_that_of_the_zone_and_follows_its_summer_time() {
        let berlin = quiet(serde_json::json!({"from": "12:00", "to": "13:00", "time_zone": "Europe/Berlin"}));
        assert!(holds(&berlin, AlertLevel::Critical, "2026-01-15T11:30:00Z"));
        assert!(!holds(&berlin, AlertLevel::Critical, "2026-07-15T11:30:00Z"));
        assert!(holds(&berlin, AlertLevel::Critical, "2026-07-15T10:30:00Z"));
    }

    #[test]
    fn the_same_time_twice_is_a_whole_day() {
        let all = quiet(serde_json::json!({"from": "00:00", "to": "00:00", "levels": []}));
        assert!(holds(&all, AlertLevel::Emergency, "2026-01-15T11:30:00Z"));
    }

    #[test]
    fn a_channel_that_is_not_named_is_not_concerned() {
        let json = serde_json::json!({"from": "00:00", "to": "00:00", "channels": ["mail"]});
        let hours: QuietHours = serde_json::from_value(json).unwrap();
        assert!(hours.of_channel("mail").is_some() && hours.of_channel("hook").is_none());
    }

    #[test]
    fn an_unknown_time_zone_is_named() {
        let json = serde_json::json!({"from": "1:00", "to": "02:00", "time_zone": "Berlin"});
        assert!(serde_json::from_value::<QuietHours>(json).is_err(), "a time has two digits");
        let json = serde_json::json!({"from": "01:00", "to": "02:00", "time_zone": "Berlin"});
        let mut problems = Vec::new();
        serde_json::from_value::<QuietHours>(json).unwrap().check("alerts.quiet_hours[0]", &mut problems);
        assert_eq!(problems[0].field, "alerts.quiet_hours[0].time_zone");
    }
}
