//! What is nested in the live rows of a page: the assignments that cover them, and their buckets; nothing else of the accounts.

use std::collections::{BTreeMap, BTreeSet};

use super::sql::{Dialect, list, tuples};
use super::{Cells, Found, Moment, Nested, broken, numbered, small, whole};
use crate::domain::{
    AccountImage, Assignment, AssignmentKey, AssignmentRow, BucketRow, Calendar, ChargingType, Instant, Level, Quantity,
};
use crate::store::{Partitioned, StoreError};

/// Instants, half-open.
type Span = (Instant, Instant);

/// What covers the live rows: assignments to their lines, sites and customers, and the buckets of those that may be drawn
/// from in the usage dates of the customer's runs.
pub(super) async fn accounts<M: Moment>(
    moment: &mut M,
    calendar: &Calendar,
    rows: &[Found],
) -> Result<Vec<Partitioned<AccountImage>>, StoreError> {
    let mut images: BTreeMap<(i32, i64), (AccountImage, BTreeSet<Span>)> = BTreeMap::new();
    let mut covering = BTreeSet::new();
    for row in rows {
        if let Nested::Live { span, site, .. } = row.nested {
            let image = || (AccountImage { customer: row.customer, ..AccountImage::default() }, BTreeSet::new());
            images.entry((row.partition, row.customer)).or_insert_with(image).1.insert(span);
            let mut cover = |level: Level, scope: i64| {
                covering.insert(list([i64::from(row.partition), row.customer, i64::from(level.number()), scope]));
            };
            cover(Level::Customer, 0);
            cover(Level::Inventory, row.upi);
            site.into_iter().for_each(|site| cover(Level::Site, site));
        }
    }
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!(
        "SELECT CAST(a.partition AS bigint), a.customer_id, CAST(a.level AS bigint), a.assignment_id, a.version, a.fact \
         FROM (VALUES {}) c JOIN assignment a ON a.partition = c.column1 AND a.customer_id = c.column2 \
         AND a.level = c.column3 AND a.scope = c.column4 WHERE a.fact IS NOT NULL",
        tuples(&covering)
    );
    let mut asked = Vec::new();
    let mut take = |row: Cells| {
        let of = (small(row.numbers[0])?, whole(row.numbers[1])?);
        let Some((image, spans)) = images.get_mut(&of) else { return Ok(()) };
        let key = AssignmentKey {
            level: numbered(&Level::ALL, row.numbers[2], "assignment.level")?,
            id: whole(row.numbers[3])?,
        };
        let fact = row.text.ok_or_else(broken)?;
        let assignment: Assignment =
            serde_json::from_str(&fact).map_err(|error| StoreError::Failed(format!("assignment.fact: {error}")))?;
        for (from, until) in drawable_in(&assignment, calendar, spans) {
            let (partition, level) = (i64::from(of.0), i64::from(key.level.number()));
            asked.push(list([partition, of.1, level, key.id, from.micros(), until.micros()]));
        }
        image.assignments.push(AssignmentRow { key, version: whole(row.numbers[4])?, assignment: Some(assignment) });
        Ok(())
    };
    moment.each(statement, 5, true, &mut take).await?;
    if asked.is_empty() {
        return Ok(into_list(images));
    }
    let Dialect { micros, instant, .. } = moment.dialect();
    let statement = format!(
        "SELECT CAST(b.partition AS bigint), b.customer_id, CAST(b.slot AS bigint), CAST(b.level AS bigint), \
         b.assignment_id, b.component_id, {}, CAST(b.charging_type AS bigint), CAST(CAST(b.by_value AS int) AS bigint), \
         b.allowance, b.remaining FROM (VALUES {}) c JOIN bucket b ON b.partition = c.column1 \
         AND b.customer_id = c.column2 AND b.level = c.column3 AND b.assignment_id = c.column4 \
         AND b.window_start >= {} AND b.window_start < {}",
        micros("b.window_start"),
        tuples(&asked),
        instant("c.column5"),
        instant("c.column6")
    );
    let mut take = |row: Cells| {
        let of = (small(row.numbers[0])?, whole(row.numbers[1])?);
        let Some((image, _)) = images.get_mut(&of) else { return Ok(()) };
        image.buckets.push(BucketRow {
            slot: small(row.numbers[2])?,
            assignment: AssignmentKey {
                level: numbered(&Level::ALL, row.numbers[3], "bucket.level")?,
                id: whole(row.numbers[4])?,
            },
            component: whole(row.numbers[5])?,
            window_start: Instant::from_micros(whole(row.numbers[6])?),
            charging_type: numbered(&ChargingType::ALL, row.numbers[7], "bucket.charging_type")?,
            by_value: row.numbers[8] == Some(1),
            allowance: Quantity::from_millionths(whole(row.numbers[9])?),
            remaining: Quantity::from_millionths(whole(row.numbers[10])?),
            mark: None,
        });
        Ok(())
    };
    moment.each(statement, 11, false, &mut take).await?;
    Ok(into_list(images))
}

/// In which spans the windows of an assignment begin that may be drawn from in these, which are in order; none twice, or
/// its bucket would come twice.
fn drawable_in(assignment: &Assignment, calendar: &Calendar, spans: &BTreeSet<Span>) -> Vec<Span> {
    let Some((first, last)) = assignment.drawable(calendar) else { return Vec::new() };
    let mut begin: Vec<Span> = spans
        .iter()
        .filter(|(from, until)| *from < last && first < *until)
        .map(|(from, until)| {
            let open = assignment.windows_open_at(calendar, *from).map(|window| window.start);
            (open.fold(*from, Instant::min), *until)
        })
        .collect();
    begin.sort_unstable();
    begin.dedup_by(|next, last| {
        let touches = next.0 <= last.1;
        if touches {
            last.1 = last.1.max(next.1);
        }
        touches
    });
    begin
}

fn into_list(images: BTreeMap<(i32, i64), (AccountImage, BTreeSet<Span>)>) -> Vec<Partitioned<AccountImage>> {
    images.into_iter().map(|((partition, _), (value, _))| Partitioned { partition, value }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Date, Frequency, samples};

    proptest! {
        #[test]
        fn the_buckets_of_all_spans_are_asked_for_once(
            frequency in prop_oneof![Just(Frequency::Daily), Just(Frequency::Weekly(1)), Just(Frequency::Monthly(1))],
            rollover in 0u16..4,
            start in 19_900..20_300,
            days in prop::option::of(0..400),
            spans in prop::collection::btree_set((20_000..20_200, 1..60), 1..6),
        ) {
            let calendar = Calendar::new("Europe/Amsterdam").expect("a zone");
            let begin = Date::from_days(start);
            let assignment = samples::assignment(frequency, rollover, begin, days.map(|days| begin.plus(days)));
            let day = |day: i32| calendar.start_of(Date::from_days(day));
            let spans: BTreeSet<Span> = spans.into_iter().map(|(from, length)| (day(from), day(from + length))).collect();
            let asked = drawable_in(&assignment, &calendar, &spans);
            prop_assert!(asked.windows(2).all(|pair| pair[0].1 < pair[1].0), "apart and in order: {asked:?}");
            for (from, until) in &spans {
                for window in assignment.windows_between(&calendar, *from, *until) {
                    let times = asked.iter().filter(|span| span.0 <= window.start && window.start < span.1).count();
                    prop_assert_eq!(times, 1, "{:?} of {:?}", window, asked);
                }
            }
        }
    }
}
