//! What the query asks of a store, and what it is answered (`domain.md section 8`).

use crate::domain::{AccountImage, Calendar, Date, Instant};
use crate::store::Partitioned;

/// A top-level scalar field, by which rows can be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// The bill run.
    BillRunId,
    /// The first day of its period.
    PeriodStartDate,
    /// The last day of its period.
    PeriodEndDate,
    /// The line.
    UsageProductInventoryId,
}

/// Ids that rows must have, in order, each once; all where `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// Customers.
    pub customers: Option<Vec<i64>>,
    /// Sites of lines.
    pub sites: Option<Vec<i64>>,
    /// Lines.
    pub lines: Option<Vec<i64>>,
    /// Bill runs, rather than the open ones.
    pub bill_runs: Option<Vec<i64>>,
    /// Assignments; they prune what is nested, as the next two do.
    pub assignments: Option<Vec<i64>>,
    /// Plans.
    pub plans: Option<Vec<i64>>,
    /// Components.
    pub components: Option<Vec<i64>>,
}

impl Filters {
    /// Whether a list is empty, so that nothing passes.
    pub(super) fn pass_nothing(&self) -> bool {
        let lists = [&self.customers, &self.sites, &self.lines, &self.bill_runs];
        let nested = [&self.assignments, &self.plans, &self.components];
        lists.into_iter().chain(nested).flatten().any(Vec::is_empty)
    }

    /// Whether anything nested is pruned.
    pub(super) fn prune(&self) -> bool {
        self.assignments.is_some() || self.plans.is_some() || self.components.is_some()
    }
}

/// A page of rows that is asked for.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Where local days begin.
    pub calendar: &'a Calendar,
    /// Which rows; what a token opens is in it already, but for the next.
    pub filters: Filters,
    /// Only rows of customers of these contract owners.
    pub owners: Option<Vec<i64>>,
    /// In this order, each with whether it is turned; ties are broken as the contract says.
    pub sort: Vec<(SortKey, bool)>,
    /// Rows before the page.
    pub skip: i64,
    /// Rows of the page.
    pub limit: i64,
    /// Whether all rows are counted.
    pub counted: bool,
    /// Whether what is nested is asked for.
    pub nested: bool,
}

/// A page of rows, as they are at one moment.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// In their order.
    pub rows: Vec<Found>,
    /// Whether a further row exists.
    pub further: bool,
    /// How many rows there are in all, if that was asked.
    pub total: Option<i64>,
    /// When each partition that was drawn on was last at the ends of its topics: the earliest of them, if all have been.
    pub applied_at: Option<Instant>,
    /// Of the customers of live rows what covers these: assignments and their buckets, nothing else.
    pub accounts: Vec<Partitioned<AccountImage>>,
}

/// A row that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of which partition.
    pub partition: i32,
    /// Its bill run.
    pub bill_run: i64,
    /// The run's first and last day.
    pub period: (Date, Date),
    /// Whose line.
    pub customer: i64,
    /// The line.
    pub upi: i64,
    /// What is nested.
    pub nested: Nested,
}

/// Where what is nested in a row comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nested {
    /// From the account as it is now.
    Live {
        /// The instants that the run's usage dates cover, half-open.
        span: (Instant, Instant),
        /// The line's site.
        site: Option<i64>,
        /// The line's product.
        product: Option<i64>,
    },
    /// It was stored when the run closed, as JSON.
    Stored(String),
}
