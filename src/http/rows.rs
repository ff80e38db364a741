//! From a query and its token to what a store is asked, and from the store's answer to rows as they are sent
//! (`domain.md section 8`).
//!
//! Rows of an open bill run are made of accounts, rows of a closed one were stored when it closed.

use std::collections::HashMap;

use serde::Serialize;

use super::auth::Grant;
use super::grammar::{Field, Query};
use crate::domain::standing::{AssignmentEntry, Pruning, Shelf, StandingLine};
use crate::domain::{AccountImage, Calendar, Date};
use crate::store::{Filters, Found, Nested, Partitioned, Question};

/// What the store is asked: what the query wants and its token opens.
pub(super) fn question<'a>(query: &Query, grant: &Grant, calendar: &'a Calendar, counted: bool) -> Question<'a> {
    let mut filters = query.filters.clone();
    filters.customers = match (filters.customers, &grant.customers) {
        (Some(asked), Some(_)) => Some(asked.into_iter().filter(|id| grant.allows_customer(*id)).collect()),
        (asked, allowed) => asked.or_else(|| allowed.clone()),
    };
    Question {
        calendar,
        filters,
        owners: grant.contract_owners.clone(),
        sort: query.sort.clone(),
        skip: i64::from(query.page - 1) * i64::from(query.page_size),
        limit: i64::from(query.page_size),
        counted,
        nested: query.wants(Field::Assignments),
    }
}

/// A row as it is answered: the fields asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RowBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    bill_run_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_start_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_end_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_product_inventory_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inclusive_usage_balance_assignments: Option<Vec<AssignmentEntry>>,
}

/// The rows of an answer, made as they are taken, since those of long dates and many buckets are large.
pub(super) struct Rows {
    query: Query,
    calendar: Calendar,
    rows: std::vec::IntoIter<Found>,
    /// Accounts that no row was made of yet.
    accounts: HashMap<(i32, i64), AccountImage>,
    shelves: HashMap<(i32, i64), Shelf<AccountImage>>,
}

impl Rows {
    pub(super) fn new(
        query: Query,
        calendar: Calendar,
        rows: Vec<Found>,
        accounts: Vec<Partitioned<AccountImage>>,
    ) -> Rows {
        let accounts = accounts.into_iter().map(|of| ((of.partition, of.value.customer), of.value)).collect();
        Rows { query, calendar, rows: rows.into_iter(), accounts, shelves: HashMap::new() }
    }

    /// The next row. The error says which stored row nobody can read.
    pub(super) fn next(&mut self) -> Option<Result<RowBody, String>> {
        let row = self.rows.next()?;
        let wants = |field| self.query.wants(field);
        let body = RowBody {
            bill_run_id: wants(Field::BillRunId).then_some(row.bill_run),
            period_start_date: wants(Field::PeriodStartDate).then_some(row.period.0),
            period_end_date: wants(Field::PeriodEndDate).then_some(row.period.1),
            usage_product_inventory_id: wants(Field::UsageProductInventoryId).then_some(row.upi),
            inclusive_usage_balance_assignments: None,
        };
        if !wants(Field::Assignments) {
            return Some(Ok(body));
        }
        let nested = self.nested(&row);
        Some(nested.map(|entries| RowBody { inclusive_usage_balance_assignments: Some(entries), ..body }))
    }

    fn nested(&mut self, row: &Found) -> Result<Vec<AssignmentEntry>, String> {
        let pruning = pruning(&self.query.filters);
        match &row.nested {
            Nested::Live { span, site, product } => {
                let line = StandingLine { upi: row.upi, site: *site, product: *product };
                let of = (row.partition, row.customer);
                if let Some(account) = self.accounts.remove(&of) {
                    self.shelves.insert(of, Shelf::new(account));
                }
                let shelf = self.shelves.get(&of);
                Ok(shelf.map_or_else(Vec::new, |shelf| shelf.entries(line, &self.calendar, *span, &pruning)))
            }
            Nested::Stored(entries) => {
                let mut entries: Vec<AssignmentEntry> = serde_json::from_str(entries).map_err(|error| {
                    let Found { bill_run, customer, upi, .. } = row;
                    format!("stored_row: bill run {bill_run}, customer {customer}, line {upi}: {error}")
                })?;
                pruning.prune(&mut entries);
                Ok(entries)
            }
        }
    }
}

/// The filters on what is nested.
fn pruning(filters: &Filters) -> Pruning<'_> {
    Pruning {
        assignments: filters.assignments.as_deref(),
        plans: filters.plans.as_deref(),
        components: filters.components.as_deref(),
    }
}
