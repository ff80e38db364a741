//! Which places rows come from, and how those follow each other in the order that is asked for.
//!
//! All rows of a source have the same bill run and the same period. So sources fall into groups, one after the other, by
//! what is to be sorted before the line; within a group rows come by line, then by the rank of their source, then by
//! customer.

use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use super::SortKey;
use crate::domain::{Date, Instant};

/// Where rows of a bill run come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) bill_run: i64,
    pub(super) period: (Date, Date),
    /// The partitions in which it is so.
    pub(super) partitions: Vec<i32>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// What stands now of customers of this cycle, in this span; of a run whose rows are being stored only what comes
    /// after those customers that are done.
    Live { cycle: i64, span: (Instant, Instant), storing: Option<i64> },
    /// What was stored when the run closed.
    Stored,
}

/// Sources as they are found, partition by partition.
#[derive(Debug, Default)]
pub(super) struct Sources(FxHashMap<(i64, (Date, Date), Kind), Vec<i32>>);

impl Sources {
    /// Adds a partition in which rows of a run come from there.
    pub(super) fn add(&mut self, bill_run: i64, period: (Date, Date), kind: Kind, partition: i32) {
        self.0.entry((bill_run, period, kind)).or_default().push(partition);
    }

    /// All of them, in any order.
    pub(super) fn into_list(self) -> Vec<Source> {
        // In order, so that runs of the same partitions are seen to be.
        let source = |((bill_run, period, kind), mut partitions): (_, Vec<i32>)| {
            partitions.sort_unstable();
            Source { bill_run, period, partitions, kind }
        };
        self.0.into_iter().map(source).collect()
    }
}

/// Sources whose rows are mingled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Each with its rank.
    pub(super) sources: Vec<(usize, Source)>,
    /// Whether lines come the other way round.
    pub(super) turned: bool,
}

/// A source, in which of some groups it is, and its rank there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) group: usize,
    pub(super) rank: usize,
    pub(super) source: &'a Source,
}

/// The sources of these groups.
pub(super) fn places(groups: &[Group]) -> impl Iterator<Item = Place<'_>> {
    groups.iter().enumerate().flat_map(|(group, sources)| {
        sources.sources.iter().map(move |(rank, source)| Place { group, rank: *rank, source })
    })
}

/// The groups in their order.
pub(super) fn groups(sources: Vec<Source>, sort: &[(SortKey, bool)]) -> Vec<Group> {
    let is_line = |(key, _): &(SortKey, bool)| *key == SortKey::UsageProductInventoryId;
    let at = sort.iter().position(is_line);
    let run = [(SortKey::BillRunId, false)];
    let (first, turned, then) = match at {
        Some(at) => (sort[..at].to_vec(), sort[at].1, [&sort[at + 1..], &run].concat()),
        None => ([sort, &run].concat(), false, Vec::new()),
    };
    let mut sources = sources;
    sources.sort_by(|one, other| compare(one, other, &first).then_with(|| compare(one, other, &then)));
    let mut groups: Vec<Group> = Vec::new();
    for source in sources {
        let last = groups.last_mut().and_then(|group| Some((group.sources.last()?.clone(), group)));
        match last {
            Some(((rank, known), group)) if compare(&known, &source, &first).is_eq() => {
                let rank = rank + usize::from(compare(&known, &source, &then).is_ne());
                group.sources.push((rank, source));
            }
            _ => groups.push(Group { sources: vec![(0, source)], turned }),
        }
    }
    groups
}

fn compare(one: &Source, other: &Source, keys: &[(SortKey, bool)]) -> Ordering {
    let orders = keys.iter().map(|(key, turned)| {
        let order = match key {
            SortKey::BillRunId => one.bill_run.cmp(&other.bill_run),
            SortKey::PeriodStartDate => one.period.0.cmp(&other.period.0),
            SortKey::PeriodEndDate => one.period.1.cmp(&other.period.1),
            SortKey::UsageProductInventoryId => Ordering::Equal,
        };
        if *turned { order.reverse() } else { order }
    });
    orders.fold(Ordering::Equal, Ordering::then)
}
