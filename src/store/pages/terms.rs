//! Sources as a statement says them: each by its own numbers, or all of a shape by the columns of a list.

use super::sources::{Kind, Place, Source};

/// Sources whose rows are found alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    Live,
    Storing,
    Stored,
}

impl Shape {
    pub(super) fn of(source: &Source) -> Shape {
        match source.kind {
            Kind::Live { storing: None, .. } => Shape::Live,
            Kind::Live { .. } => Shape::Storing,
            Kind::Stored => Shape::Stored,
        }
    }
}

/// What tells sources of a shape from one another, as a statement says it: numbers, or the columns of a list of them.
pub(super) struct Terms {
    pub(super) source: String,
    pub(super) group: String,
    pub(super) rank: String,
    pub(super) run: String,
    pub(super) cycle: String,
    pub(super) from: String,
    pub(super) until: String,
    pub(super) done: String,
}

impl Terms {
    /// The list's name and columns.
    pub(super) const LIST: &str = "v(source, in_group, rank, run, cycle, from_micros, until_micros, done)";

    /// Of a source, which is the one at this place among all.
    pub(super) fn of(at: usize, Place { group, rank, source }: &Place<'_>) -> Terms {
        let null = || "NULL".to_owned();
        let (cycle, from, until, done) = match source.kind {
            Kind::Live { cycle, span, storing } => (
                cycle.to_string(),
                span.0.micros().to_string(),
                span.1.micros().to_string(),
                storing.map_or_else(null, |done| done.to_string()),
            ),
            Kind::Stored => (null(), null(), null(), null()),
        };
        let run = source.bill_run.to_string();
        let (source, group, rank) = (at.to_string(), group.to_string(), rank.to_string());
        Terms { source, group, rank, run, cycle, from, until, done }
    }

    /// Of the list.
    pub(super) fn columns() -> Terms {
        let column = |name: &str| format!("v.{name}");
        Terms {
            source: column("source"),
            group: column("in_group"),
            rank: column("rank"),
            run: column("run"),
            cycle: column("cycle"),
            from: column("from_micros"),
            until: column("until_micros"),
            done: column("done"),
        }
    }

    /// As a row of the list.
    pub(super) fn into_row(self) -> String {
        let Terms { source, group, rank, run, cycle, from, until, done } = self;
        format!("({source}, {group}, {rank}, {run}, {cycle}, {from}, {until}, {done})")
    }
}
