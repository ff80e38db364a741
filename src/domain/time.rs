//! Instants and dates as plain numbers, with the text forms that the contract uses (`domain.md section 2`).
//!
//! What a local day is, and where it begins, is the business of [`Calendar`](super::Calendar).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;
/// Microseconds in a day of 24 hours.
const DAY: i64 = 86_400 * SECOND;

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

impl Instant {
    /// The greatest one; nothing that is read from outside comes near it.
    pub const MAX: Instant = Instant(i64::MAX);
    /// The least one; nothing that is read from outside comes near it.
    pub const MIN: Instant = Instant(i64::MIN);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Instant {
        Instant(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 with an offset; digits finer than a microsecond are cut.
    pub fn parse(text: &str) -> Option<Instant> {
        let b = text.as_bytes();
        if b.len() < 20 || !matches!(b[10], b'T' | b't') || b[13] != b':' || b[16] != b':' {
            return None;
        }
        let date = Date::parse(text.get(..10)?)?;
        let (hour, minute, second) = (two(b, 11)?, two(b, 14)?, two(b, 17)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (mut at, mut micros) = (19, 0);
        if b[at] == b'.' {
            at += 1;
            let mut unit = SECOND / 10;
            let first = at;
            while let Some(digit) = b.get(at).filter(|d| d.is_ascii_digit()) {
                micros += i64::from(digit - b'0') * unit;
                unit /= 10;
                at += 1;
            }
            if at == first {
                return None;
            }
        }
        let offset = match b.get(at)? {
            b'Z' | b'z' if at + 1 == b.len() => 0,
            sign @ (b'+' | b'-') if at + 6 == b.len() && b[at + 3] == b':' => {
                let (hours, minutes) = (two(b, at + 1)?, two(b, at + 4)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let minutes = hour * 60 + minute - offset;
        Some(Instant(i64::from(date.0) * DAY + minutes * 60 * SECOND + second * SECOND + micros))
    }
}

/// Two decimal digits at `at`.
fn two(b: &[u8], at: usize) -> Option<i64> {
    let digit = |i: usize| b.get(i).filter(|d| d.is_ascii_digit()).map(|d| i64::from(d - b'0'));
    Some(digit(at)? * 10 + digit(at + 1)?)
}

impl fmt::Display for Instant {
    /// RFC 3339 in UTC, with as many decimals as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, micros) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (seconds, mut fraction) = (micros / SECOND, micros % SECOND);
        let date = Date(i32::try_from(day).map_err(|_| fmt::Error)?);
        write!(f, "{date}T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if fraction != 0 {
            let mut width = 6;
            while fraction % 10 == 0 {
                fraction /= 10;
                width -= 1;
            }
            write!(f, ".{fraction:0width$}")?;
        }
        f.write_str("Z")
    }
}

/// A calendar date: days since 1970-01-01. Years 0000 to 9999 have a text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// From days since 1970-01-01.
    pub const fn from_days(days: i32) -> Date {
        Date(days)
    }

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.0
    }

    /// From year, month (1..12) and day (1..31) of the Gregorian calendar, which must exist.
    pub fn from_civil(year: i32, month: i32, day: i32) -> Date {
        // Years begin in March here, so that the leap day is the last one.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Date(era * 146_097 + day_of_era - 719_468)
    }

    /// Year, month and day.
    pub fn civil(self) -> (i32, i32, i32) {
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + i32::from(month <= 2), month, day)
    }

    /// Reads `yyyy-MM-dd`; `None` for another form and for days that do not exist.
    pub fn parse(text: &str) -> Option<Date> {
        let b = text.as_bytes();
        if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
            return None;
        }
        let year = i32::try_from(two(b, 0)? * 100 + two(b, 2)?).ok()?;
        let (month, day) = (i32::try_from(two(b, 5)?).ok()?, i32::try_from(two(b, 8)?).ok()?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let date = Date::from_civil(year, month, day);
        (date.civil() == (year, month, day)).then_some(date)
    }

    /// The day so many days later.
    #[must_use]
    pub fn plus(self, days: i32) -> Date {
        Date(self.0 + days)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        let text = String::deserialize(deserializer)?;
        Date::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("\"{text}\" is no date")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_by_rfc_3339() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01t00:00:00.123456789z", Some(123_456)),
            ("1969-12-31T23:59:59.9999999Z", Some(-1)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T19:00:00-05:00", Some(0)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("1970-01-01 00:00:00Z", None),
            ("1970-01-01T00:00:60Z", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-01-01T00:00:00", None),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:00+0100", None),
            ("1970-01-01T00:00:00+24:00", None),
            ("1970-01-01T00:00Z", None),
            ("", None),
            ("１９７０-01-01T00:00:00Z", None),
        ] {
            assert_eq!(Instant::parse(text).map(Instant::micros), micros, "{text:?}");
        }
    }

    #[test]
    fn instants_are_written_in_utc() {
        for text in ["1970-01-01T00:00:00Z", "2026-10-25T01:30:00.25Z", "0001-01-01T00:00:00.000001Z"] {
            assert_eq!(Instant::parse(text).map(|i| i.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn dates_go_both_ways() {
        for days in (-719_528..2_932_897).step_by(13) {
            let date = Date::from_days(days);
            assert_eq!(Date::parse(&date.to_string()), Some(date));
        }
        assert_eq!(Date::parse("1900-02-29"), None);
        assert_eq!(Date::parse("2000-13-01"), None);
        assert_eq!(Date::parse("2000-1-01"), None);
    }
}
