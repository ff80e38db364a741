//! Days and windows in the plainest way: by walking (`domain.md sections 2 and 4`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::facts::{Assignment, Frequency};

/// Where local days begin, in one time zone.
pub(crate) struct Calendar {
    zone: TimeZone,
    found: RefCell<HashMap<Date, i64>>,
}

/// A window of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Its first instant, as cut.
    pub(crate) start: i64,
    /// Where it ends, as cut.
    pub(crate) end: i64,
    /// When its bucket may be drawn no more.
    pub(crate) expiry: i64,
    /// Whether the assignment's dates cut it.
    pub(crate) cut: bool,
}

thread_local! {
    static CALENDARS: RefCell<HashMap<String, Rc<Calendar>>> = RefCell::default();
}

impl Calendar {
    /// The calendar of a zone; what it found out about days is kept.
    pub(crate) fn of(zone: &str) -> Rc<Calendar> {
        let new = || Calendar { zone: TimeZone::get(zone).expect("a known zone"), found: RefCell::default() };
        CALENDARS.with_borrow_mut(|known| known.entry(zone.to_owned()).or_insert_with(|| Rc::new(new())).clone())
    }

    /// The first instant that falls on this day or, where the clocks left the day out, on a later one. Clocks change at
    /// quarters of an hour, so that it is enough to look at those.
    pub(crate) fn start_of(&self, day: Date) -> i64 {
        *self.found.borrow_mut().entry(day).or_insert_with(|| {
            let midnight = day.to_zoned_datetime(TimeZone::UTC).expect("a day of our time").timestamp();
            (-64..=64)
                .map(|quarter: i64| midnight + (15 * quarter).minutes())
                .find(|at| self.local(*at) >= day)
                .expect("no zone is 16 hours off")
                .as_microsecond()
        })
    }

    fn local(&self, at: Timestamp) -> Date {
        at.to_zoned_datetime(self.zone.clone()).date()
    }

    /// `yyyy-MM-dd HH:mm:ss` on the wall clock.
    pub(crate) fn wall_clock(&self, instant: i64) -> String {
        let at = Timestamp::from_microsecond(instant).expect("an instant of our time");
        at.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The windows of an assignment that begin no later than `until`.
    pub(crate) fn windows(&self, assignment: &Assignment, until: i64) -> Vec<Window> {
        let frequency = assignment.plan.frequency;
        let first = self.start_of(assignment.start);
        let last = assignment.end.map_or(i64::MAX, |end| self.start_of(next(end)));
        let mut windows = Vec::new();
        let mut period = first_day(frequency, assignment.start);
        loop {
            let (whole_start, whole_end) = (self.start_of(period), self.start_of(following(frequency, period, 1)));
            let (start, end) = (whole_start.max(first), whole_end.min(last));
            if start >= last || start > until {
                return windows;
            }
            if start < end {
                let expiry = self.start_of(following(frequency, period, assignment.plan.rollover + 1)).min(last);
                windows.push(Window { start, end, expiry, cut: start > whole_start || end < whole_end });
            }
            period = following(frequency, period, 1);
        }
    }
}

/// The next day.
pub(crate) fn next(day: Date) -> Date {
    day.tomorrow().expect("a day of our time")
}

/// The first day of the period that a day lies in.
fn first_day(frequency: Frequency, day: Date) -> Date {
    let mut first = day;
    while !match frequency {
        Frequency::Daily => true,
        Frequency::Weekly(anchor) => first.weekday().to_monday_one_offset() == anchor,
        Frequency::Monthly(anchor) => first.day() == anchor,
    } {
        first = first.yesterday().expect("a day of our time");
    }
    first
}

/// The first day of the period that comes `periods` after the one that begins on this day.
fn following(frequency: Frequency, first: Date, periods: i64) -> Date {
    let span = match frequency {
        Frequency::Daily => periods.days(),
        Frequency::Weekly(_) => periods.weeks(),
        Frequency::Monthly(_) => periods.months(),
    };
    first.checked_add(span).expect("a day of our time")
}
