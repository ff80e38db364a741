//! Local days of the configured time zone (`domain.md section 2`).
//!
//! A local day begins at its first instant. Days of 23 or 25 hours follow from that and need no rule of their own.
//! The days that usage falls on are looked up in a table made once; days outside it are asked of the time zone.

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::time::{Date, Instant};

/// Microseconds in a day of 24 hours.
const DAY: i64 = 86_400_000_000;
/// The years whose days stand in the table.
const TABLE: (i32, i32) = (2000, 2060);

/// Where local days begin.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    first: Date,
    starts: Vec<Instant>,
}

/// The name of a time zone that is not known.
#[derive(Debug, thiserror::Error)]
#[error("time_zone: \"{0}\" is not an IANA time zone; try \"UTC\" or \"Europe/London\"")]
pub struct UnknownTimeZone(String);

fn zone(name: &str) -> Result<TimeZone, UnknownTimeZone> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| UnknownTimeZone(name.to_owned()))
}

impl Calendar {
    /// The calendar of an IANA time zone, `UTC` included.
    pub fn new(name: &str) -> Result<Calendar, UnknownTimeZone> {
        let zone = zone(name)?;
        let (first, end) = (Date::from_civil(TABLE.0, 1, 1), Date::from_civil(TABLE.1, 1, 1));
        let starts = (first.days()..end.days()).map(|day| start_in(&zone, Date::from_days(day))).collect();
        Ok(Calendar { zone, first, starts })
    }

    /// Whether it is that of this IANA time zone.
    pub fn is_of(&self, name: &str) -> bool {
        zone(name).is_ok_and(|zone| zone == self.zone)
    }

    /// The first instant of a local day.
    pub fn start_of(&self, date: Date) -> Instant {
        let at = usize::try_from(i64::from(date.days()) - i64::from(self.first.days())).ok();
        match at.and_then(|at| self.starts.get(at)) {
            Some(start) => *start,
            None => start_in(&self.zone, date),
        }
    }

    /// The local day that an instant falls on.
    pub fn date_of(&self, instant: Instant) -> Date {
        let days = instant.micros().div_euclid(DAY).clamp(i64::from(i32::MIN / 2), i64::from(i32::MAX / 2));
        let mut date = Date::from_days(i32::try_from(days).expect("clamped"));
        while self.start_of(date) > instant {
            date = date.plus(-1);
        }
        while self.start_of(date.plus(1)) <= instant {
            date = date.plus(1);
        }
        date
    }

    /// `yyyy-MM-dd HH:mm:ss` in local time, finer digits cut.
    pub fn local_second(&self, instant: Instant) -> String {
        let offset = self.offset_seconds(instant);
        let shifted = Instant::from_micros(instant.micros().saturating_add(offset * 1_000_000));
        let text = shifted.to_string();
        let (date, rest) = text.split_once('T').unwrap_or((&text, ""));
        format!("{date} {}", rest.get(..8).unwrap_or(rest))
    }

    /// Seconds that local time is ahead of UTC.
    fn offset_seconds(&self, instant: Instant) -> i64 {
        let at = Timestamp::from_microsecond(instant.micros()).unwrap_or(if instant.micros() < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        });
        i64::from(self.zone.to_offset(at).seconds())
    }
}

/// Asks the time zone. Beyond the dates that it knows a day begins at midnight UTC.
fn start_in(zone: &TimeZone, date: Date) -> Instant {
    let midnight_utc = Instant::from_micros(i64::from(date.days()).saturating_mul(DAY));
    let (year, month, day) = date.civil();
    let known = i16::try_from(year).ok().zip(i8::try_from(month).ok().zip(i8::try_from(day).ok()));
    let Some(midnight) = known.and_then(|(year, (month, day))| civil::DateTime::new(year, month, day, 0, 0, 0, 0).ok())
    else {
        return midnight_utc;
    };
    let ambiguous = zone.to_ambiguous_timestamp(midnight);
    if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
        // Midnight was skipped: the day begins where the clock went on, which is that transition itself.
        let search = Timestamp::from_microsecond(midnight_utc.micros() - 2 * DAY).unwrap_or(Timestamp::MIN);
        for transition in zone.following(search) {
            let at = transition.timestamp();
            if zone.to_datetime(at) >= midnight {
                return Instant::from_micros(at.as_microsecond());
            }
        }
    }
    // Midnight that comes twice begins the day the first time.
    ambiguous.earlier().map_or(midnight_utc, |at| Instant::from_micros(at.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(zone: &str, date: &str) -> String {
        let date = Date::parse(date).expect("a date");
        Calendar::new(zone).expect("a zone").start_of(date).to_string()
    }

    #[test]
    fn a_day_begins_at_its_first_instant() {
        for (zone, date, instant) in [
            ("UTC", "2026-03-29", "2026-03-29T00:00:00Z"),
            ("Europe/London", "2026-03-29", "2026-03-29T00:00:00Z"),
            ("Europe/London", "2026-03-30", "2026-03-29T23:00:00Z"),
            // Midnight skipped: the clock went from 23:59:59 to 01:00.
            ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
            // From 23:30 to 00:30: the day begins at 00:30.
            ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"),
            // Midnight twice: the first one counts.
            ("America/Havana", "2025-11-02", "2025-11-02T04:00:00Z"),
            ("Asia/Kolkata", "1950-01-01", "1949-12-31T18:30:00Z"),
            ("Asia/Kolkata", "9999-12-31", "9999-12-30T18:30:00Z"),
        ] {
            assert_eq!(start(zone, date), instant, "{zone} {date}");
        }
    }

    #[test]
    fn every_instant_falls_on_one_day() {
        for zone in ["UTC", "America/Sao_Paulo", "Europe/London", "Pacific/Apia", "Asia/Kathmandu"] {
            let calendar = Calendar::new(zone).expect("a zone");
            let mut at = Instant::parse("1999-12-20T00:00:00Z").expect("an instant").micros();
            let end = Instant::parse("2020-01-01T00:00:00Z").expect("an instant").micros();
            while at < end {
                let instant = Instant::from_micros(at);
                let date = calendar.date_of(instant);
                assert!(
                    calendar.start_of(date) <= instant && instant < calendar.start_of(date.plus(1)),
                    "{zone} {instant}"
                );
                at += 7_013_000_017;
            }
        }
    }

    #[test]
    fn local_seconds_follow_the_clock() {
        let calendar = Calendar::new("Europe/London").expect("a zone");
        let at = Instant::parse("2026-07-01T22:59:59.9Z").expect("an instant");
        assert_eq!(calendar.local_second(at), "2026-07-01 23:59:59");
    }
}
