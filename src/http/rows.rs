//! From a query and its token to what a store is asked, and from the store's answer to rows as they are sent
//! (`domain.md section 8`).
//!
//! Rows of an open bill run are made of accounts, rows of a closed one were stored when it closed.

use std::collections::HashMap;

use serde::Serialize;

use super::auth::Grant;
use super::grammar::{Field, Query};
use crate::domain::standing::{AssignmentEntry, Pruning, Shelf, StandingLine};
use crate::domain::{Calendar, Date};
use crate::store::{Answer, Filters, Found, Nested, Question};

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

/// The rows of an answer.
pub(super) fn bodies(answer: &Answer, calendar: &Calendar, query: &Query) -> Vec<RowBody> {
    let shelves: HashMap<(i32, i64), Shelf<'_>> =
        answer.accounts.iter().map(|of| ((of.partition, of.value.customer), Shelf::new(&of.value))).collect();
    let pruning = pruning(&query.filters);
    let nested = |row: &Found| match &row.nested {
        Nested::Live { span, site, product } => {
            let line = StandingLine { upi: row.upi, site: *site, product: *product };
            let shelf = shelves.get(&(row.partition, row.customer));
            shelf.map_or_else(Vec::new, |shelf| shelf.entries(line, calendar, *span, &pruning))
        }
        Nested::Stored(entries) => {
            let mut entries: Vec<AssignmentEntry> =
                serde_json::from_str(entries).expect("stored rows are written by this program only");
            pruning.prune(&mut entries);
            entries
        }
    };
    let body = |row: &Found| RowBody {
        bill_run_id: query.wants(Field::BillRunId).then_some(row.bill_run),
        period_start_date: query.wants(Field::PeriodStartDate).then_some(row.period.0),
        period_end_date: query.wants(Field::PeriodEndDate).then_some(row.period.1),
        usage_product_inventory_id: query.wants(Field::UsageProductInventoryId).then_some(row.upi),
        inclusive_usage_balance_assignments: query.wants(Field::Assignments).then(|| nested(row)),
    };
    answer.rows.iter().map(body).collect()
}

/// The filters on what is nested.
fn pruning(filters: &Filters) -> Pruning<'_> {
    Pruning {
        assignments: filters.assignments.as_deref(),
        plans: filters.plans.as_deref(),
        components: filters.components.as_deref(),
    }
}
