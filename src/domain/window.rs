//! Windows of an allowance, as its assignment cuts them (`domain.md section 4`).

use super::calendar::Calendar;
use super::facts::{Assignment, Frequency};
use super::time::{Date, Instant};

impl Frequency {
    /// The number of the period that a day lies in; the next period has the next number.
    pub fn period_of(self, date: Date) -> i32 {
        match self {
            Frequency::Daily => date.days(),
            // 1970-01-01 was a Thursday: four days after a Monday less one.
            Frequency::Weekly(anchor) => (date.days() + 4 - i32::from(anchor)).div_euclid(7),
            Frequency::Monthly(anchor) => {
                let (year, month, day) = date.civil();
                year * 12 + month - 1 - i32::from(day < i32::from(anchor))
            }
        }
    }

    /// The first day of a period.
    pub fn first_day(self, period: i32) -> Date {
        match self {
            Frequency::Daily => Date::from_days(period),
            Frequency::Weekly(anchor) => Date::from_days(period * 7 - 4 + i32::from(anchor)),
            Frequency::Monthly(anchor) => {
                Date::from_civil(period.div_euclid(12), period.rem_euclid(12) + 1, i32::from(anchor))
            }
        }
    }
}

/// The dates of a bucket: its window's start as cut, and the end of the dates in which it may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first instant of the window as the assignment cuts it; it tells the buckets of a component apart.
    pub start: Instant,
    /// The first instant at which the bucket may no longer be drawn.
    pub expiry: Instant,
}

impl Window {
    /// Whether the bucket may be drawn at an instant.
    pub fn is_open_at(&self, instant: Instant) -> bool {
        self.start <= instant && instant < self.expiry
    }
}

impl Assignment {
    /// The dates in which anything of it may be drawn, half-open.
    fn span(&self, calendar: &Calendar) -> (Instant, Instant) {
        let end = self.end_date.map_or(Instant::MAX, |date| calendar.start_of(date.plus(1)));
        (calendar.start_of(self.start_date), end)
    }

    /// The window of a period, if the assignment leaves any of it.
    pub fn window(&self, calendar: &Calendar, period: i32) -> Option<Window> {
        let (from, until) = self.span(calendar);
        let frequency = self.plan.frequency;
        let start = calendar.start_of(frequency.first_day(period)).max(from);
        let end = calendar.start_of(frequency.first_day(period + 1)).min(until);
        if start >= end {
            return None;
        }
        let last = period + 1 + i32::from(self.plan.rollover_periods);
        let expiry = calendar.start_of(frequency.first_day(last)).min(until);
        Some(Window { start, expiry })
    }

    /// The windows whose buckets may be drawn at some instant of `from..until`, earliest first.
    pub fn windows_between(
        &self,
        calendar: &Calendar,
        from: Instant,
        until: Instant,
    ) -> impl Iterator<Item = Window> + use<'_> {
        let (first, end) = self.span(calendar);
        let (from, until) = (from.max(first), until.min(end));
        let mut periods = None;
        if from < until {
            let frequency = self.plan.frequency;
            let oldest = frequency.period_of(calendar.date_of(from)) - i32::from(self.plan.rollover_periods);
            let oldest = oldest.max(frequency.period_of(self.start_date));
            let newest = frequency.period_of(calendar.date_of(Instant::from_micros(until.micros() - 1)));
            periods = Some(oldest..=newest);
        }
        let calendar = calendar.clone();
        periods.into_iter().flatten().filter_map(move |period| self.window(&calendar, period))
    }
}
