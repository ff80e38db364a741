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
    /// The dates from its first day to its last, half-open; empty where the calendar skips all of them.
    fn span(&self, calendar: &Calendar) -> (Instant, Instant) {
        let end = self.end_date.map_or(Instant::MAX, |date| calendar.start_of(date.plus(1)));
        (calendar.start_of(self.start_date), end)
    }

    /// The dates in which anything of it may be drawn, half-open; `None` when there is nothing to draw at any time.
    pub fn drawable(&self, calendar: &Calendar) -> Option<(Instant, Instant)> {
        Some(self.span(calendar)).filter(|(from, until)| !self.plan.components.is_empty() && from < until)
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

    /// The windows whose buckets may be drawn at an instant, earliest first.
    pub fn windows_open_at<'a>(
        &'a self,
        calendar: &'a Calendar,
        instant: Instant,
    ) -> impl Iterator<Item = Window> + 'a {
        let next = Instant::from_micros(instant.micros().saturating_add(1));
        self.windows_between(calendar, instant, next)
    }

    /// A bound that needs no calendar: a bucket whose window starts before it may not be drawn from at `since` or later; `None`
    /// where none may. It lies some days before the start of the first that may, for months more than for weeks and days.
    pub fn starts_from(&self, since: Instant) -> Option<Instant> {
        const DAY: i64 = 86_400_000_000;
        let is_over = |end: Date| i64::from(end.days()).saturating_add(3).saturating_mul(DAY) <= since.micros();
        if self.plan.components.is_empty() || self.end_date.is_some_and(is_over) {
            return None;
        }
        let longest = match self.plan.frequency {
            Frequency::Daily => 1,
            Frequency::Weekly(_) => 7,
            Frequency::Monthly(_) => 31,
        };
        // Clocks that change make days longer, once even by a whole one.
        let days = longest * (1 + i64::from(self.plan.rollover_periods)) + 2;
        Some(Instant::from_micros(since.micros().saturating_sub(days * DAY)))
    }

    /// The latest instant, at or before this one, at which a window of it expires; `None` where none did by then.
    pub fn last_expiry_by(&self, calendar: &Calendar, at: Instant) -> Option<Instant> {
        let (_, until) = self.drawable(calendar)?;
        if until <= at {
            return Some(until);
        }
        let frequency = self.plan.frequency;
        let period = frequency.period_of(calendar.date_of(at));
        let last = period - 1 - i32::from(self.plan.rollover_periods);
        (last >= frequency.period_of(self.start_date)).then(|| calendar.start_of(frequency.first_day(period)))
    }

    /// The windows whose buckets may be drawn at some instant of `from..until`, earliest first.
    pub fn windows_between<'a>(
        &'a self,
        calendar: &'a Calendar,
        from: Instant,
        until: Instant,
    ) -> impl Iterator<Item = Window> + 'a {
        let (first, end) = self.span(calendar);
        let (from, until) = (from.max(first), until.min(end));
        let periods = (from < until).then(|| {
            let frequency = self.plan.frequency;
            let oldest = frequency.period_of(calendar.date_of(from)) - i32::from(self.plan.rollover_periods);
            let oldest = oldest.max(frequency.period_of(self.start_date));
            let newest = frequency.period_of(calendar.date_of(Instant::from_micros(until.micros() - 1)));
            oldest..=newest
        });
        periods.into_iter().flatten().filter_map(|period| self.window(calendar, period))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::samples;

    fn date(text: &str) -> Date {
        Date::parse(text).expect("a date")
    }

    fn assignment(frequency: Frequency, rollover_periods: u16, start: &str, end: Option<&str>) -> Assignment {
        samples::assignment(frequency, rollover_periods, date(start), end.map(date))
    }

    fn windows(zone: &str, assignment: &Assignment, from: &str, until: &str) -> Vec<(String, String)> {
        let calendar = Calendar::new(zone).expect("a zone");
        let (from, until) = (calendar.start_of(date(from)), calendar.start_of(date(until)));
        let windows = assignment.windows_between(&calendar, from, until);
        windows.map(|w| (calendar.local_second(w.start), calendar.local_second(w.expiry))).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| (format!("{a} 00:00:00"), format!("{b} 00:00:00"))).collect()
    }

    #[test]
    fn periods_go_both_ways() {
        for frequency in [Frequency::Daily, Frequency::Weekly(1), Frequency::Weekly(7), Frequency::Monthly(28)] {
            for days in -800_000..-799_000 {
                let day = Date::from_days(days);
                let period = frequency.period_of(day);
                assert!(frequency.first_day(period) <= day && day < frequency.first_day(period + 1), "{frequency:?}");
            }
        }
    }

    #[test]
    fn weeks_begin_on_their_anchor_day() {
        let monday = date("2026-11-23");
        assert_eq!(Frequency::Weekly(1).first_day(Frequency::Weekly(1).period_of(monday.plus(6))), monday);
        assert_eq!(Frequency::Weekly(7).first_day(Frequency::Weekly(7).period_of(monday)), monday.plus(-1));
    }

    #[test]
    fn windows_are_cut_and_expire_with_their_assignment() {
        let cut = assignment(Frequency::Monthly(1), 1, "2026-03-10", Some("2026-05-20"));
        assert_eq!(
            windows("Europe/London", &cut, "2026-01-01", "2027-01-01"),
            pairs(&[("2026-03-10", "2026-05-01"), ("2026-04-01", "2026-05-21"), ("2026-05-01", "2026-05-21")])
        );
        assert_eq!(
            windows("Europe/London", &cut, "2026-04-02", "2026-04-03"),
            pairs(&[("2026-03-10", "2026-05-01"), ("2026-04-01", "2026-05-21")])
        );
        assert_eq!(windows("UTC", &cut, "2026-05-21", "2027-01-01"), pairs(&[]));
    }

    #[test]
    fn a_day_of_23_hours_is_a_window_like_others() {
        let calendar = Calendar::new("Europe/London").expect("a zone");
        let daily = assignment(Frequency::Daily, 0, "2026-03-01", None);
        let spring = daily.window(&calendar, date("2026-03-29").days()).expect("a window");
        assert_eq!(spring.expiry.micros() - spring.start.micros(), 23 * 3_600_000_000);
    }

    proptest! {
        #[test]
        fn what_may_be_drawn_from_starts_after_the_bound_and_expires_after_the_last(
            zone in prop_oneof![Just("UTC"), Just("America/Havana"), Just("Pacific/Apia"), Just("Pacific/Kwajalein")],
            frequency in prop_oneof![Just(Frequency::Daily), Just(Frequency::Weekly(3)), Just(Frequency::Monthly(28))],
            rollover in prop_oneof![0u16..3, Just(u16::MAX)],
            // Kwajalein left out a day in 1993, and Apia one at the end of 2011.
            start in prop_oneof![8_500..8_700, 15_200..15_400, 20_000..20_400i32],
            days in prop::option::of(0..400),
            hours in 0..9_000i64,
        ) {
            let calendar = Calendar::new(zone).expect("a zone");
            let start_date = Date::from_days(start);
            let end_date = days.map(|days| start_date.plus(days));
            let assignment = samples::assignment(frequency, rollover, start_date, end_date);
            let since = Instant::from_micros(calendar.start_of(start_date).micros() + hours * 3_600_000_000);
            let bound = assignment.starts_from(since);
            for window in assignment.windows_between(&calendar, since, Instant::from_micros(since.micros() + 86_400_000_000)) {
                prop_assert!(bound.is_some_and(|bound| window.start >= bound), "{window:?} of {bound:?}");
            }
            let last = assignment.last_expiry_by(&calendar, since);
            prop_assert!(last.is_none_or(|last| last <= since));
            let until = Instant::from_micros(since.micros() + 1);
            for window in assignment.windows_between(&calendar, calendar.start_of(start_date), until) {
                prop_assert_eq!(window.expiry <= since, last.is_some_and(|last| window.expiry <= last), "{:?}", window);
            }
        }
    }
}
