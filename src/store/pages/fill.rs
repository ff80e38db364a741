//! The rows of a page, group by group of the order, and how many rows there are in all.

use super::sources::{self, Group, Kind, Source};
use super::sql::Statements;
use super::{Answer, Cells, Found, Moment, Nested, Question, broken, small, whole};
use crate::store::StoreError;

/// The most groups that are looked into at once for the rows of a page.
const LONGEST_STRETCH: usize = 64;

/// Reads the rows of the page, and counts what must be counted: groups by the stretch, since where they are nearly empty each
/// of a thousand would take two statements.
pub(super) async fn fill<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    question: &Question<'_>,
    answer: &mut Answer,
) -> Result<(), StoreError> {
    let (first, mut skip) = if question.counted {
        let counts = counted(moment, statements, groups, None).await?;
        answer.total = Some(counts.iter().sum());
        begin(&counts, question.skip)
    } else {
        first_group(moment, statements, groups, question.skip).await?
    };
    // One more than asked for, to tell whether there is a further one.
    let mut open = question.limit + 1;
    for stretch in stretches(groups.get(first..).unwrap_or_default()) {
        if open == 0 {
            break;
        }
        let mut rows = Vec::new();
        if let Some(first) = statements.of_first(stretch, skip + open) {
            rows = moment.rows(first.page(stretch, skip, open), 6, true).await?;
        }
        // Fewer than asked for may be all that there are, or all among the first.
        if i64::try_from(rows.len()) != Ok(open) {
            rows = moment.rows(statements.page(stretch, skip, open), 6, true).await?;
        }
        let sources: Vec<&Source> = sources::places(stretch).map(|place| place.source).collect();
        for row in rows {
            answer.rows.push(found(&sources, row)?);
            open -= 1;
        }
        skip = 0;
    }
    answer.further = open == 0;
    if answer.further {
        answer.rows.pop();
    }
    Ok(())
}

/// One group, then two, then four, and so on: where groups are full the first has the page already. Never more than some, so
/// that full ones behind many empty ones are not all looked into for the rows of one page.
fn stretches(groups: &[Group]) -> impl Iterator<Item = &[Group]> {
    let (mut rest, mut length) = (groups, 1);
    std::iter::from_fn(move || {
        let (stretch, behind) = rest.split_at(length.min(rest.len()));
        (rest, length) = (behind, LONGEST_STRETCH.min(2 * length));
        (!stretch.is_empty()).then_some(stretch)
    })
}

/// In which group a page begins, and behind how many of its rows.
async fn first_group<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    skip: i64,
) -> Result<(usize, i64), StoreError> {
    let mut counts = Vec::new();
    // Behind the last one is nothing, however many rows it has.
    for stretch in stretches(&groups[..groups.len().saturating_sub(1)]) {
        let left = skip - counts.iter().sum::<i64>();
        if left <= 0 {
            break;
        }
        // That there are more than are left to skip says that the page begins there.
        counts.extend(counted(moment, statements, stretch, Some(left)).await?);
    }
    Ok(begin(&counts, skip))
}

/// In which of these groups, or behind them, a page begins, and behind how many of its rows.
fn begin(counts: &[i64], skip: i64) -> (usize, i64) {
    let mut skip = skip;
    for (at, count) in counts.iter().enumerate() {
        if skip < *count {
            return (at, skip);
        }
        skip -= count;
    }
    (counts.len(), skip)
}

/// How many rows each of these groups has; where it has more than `most`, some number that is more, too.
async fn counted<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    most: Option<i64>,
) -> Result<Vec<i64>, StoreError> {
    let mut counts = vec![0; groups.len()];
    if groups.is_empty() {
        return Ok(counts);
    }
    for row in moment.rows(statements.count(groups, most), 2, false).await? {
        let at = usize::try_from(whole(row.numbers[0])?).ok();
        *at.and_then(|at| counts.get_mut(at)).ok_or_else(broken)? = whole(row.numbers[1])?;
    }
    Ok(counts)
}

fn found(sources: &[&Source], row: Cells) -> Result<Found, StoreError> {
    let at = usize::try_from(whole(row.numbers[0])?).ok();
    let source = *at.and_then(|at| sources.get(at)).ok_or_else(broken)?;
    let nested = match source.kind {
        Kind::Live { span, .. } => Nested::Live { span, site: row.numbers[4], product: row.numbers[5] },
        Kind::Stored => Nested::Stored(row.text.ok_or_else(broken)?),
    };
    Ok(Found {
        partition: small(row.numbers[1])?,
        bill_run: source.bill_run,
        period: source.period,
        customer: whole(row.numbers[2])?,
        upi: whole(row.numbers[3])?,
        nested,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_all_groups_in_their_order() {
        for count in [0, 1, 2, 3, 4, 7, 8, 127, 128, 1_000] {
            let groups: Vec<Group> = (0..count).map(|_| Group { sources: Vec::new(), turned: false }).collect();
            let lengths: Vec<usize> = stretches(&groups).map(<[Group]>::len).collect();
            assert_eq!(lengths.iter().sum::<usize>(), count);
            assert!(lengths.first().is_none_or(|length| *length == 1) && lengths.iter().all(|length| *length <= 64));
        }
    }
}
