//! By what the rows of a page are found: by customers where few can have them, else by site, else by their order.

use std::collections::BTreeSet;

use super::sql::{Way, list};
use super::{Moment, Question, small, whole};
use crate::store::StoreError;

/// The most customers that are named to find rows by.
const FEW: usize = 1_000;
/// The most customers by which rows are found rather than by their order, each counted for every plan that it had of those
/// asked for.
const MOST: i64 = 10_000;
/// The most rows that are read to learn which plans have a component.
const MOST_NAMED: usize = 10 * FEW;

/// By what live rows and stored ones are found.
pub(super) async fn ways<M: Moment>(
    moment: &mut M,
    question: &Question<'_>,
    by_customer: Option<Vec<(i32, i64)>>,
    partitions: &[i32],
) -> Result<(Way, Way), StoreError> {
    let filters = &question.filters;
    if let Some(customers) = by_customer {
        return Ok((Way::Customers(customers.clone()), Way::Customers(customers)));
    }
    let rest = || if filters.sites.is_some() { Way::Sites } else { Way::Order };
    // An assignment's row stays where it is once it was ever heard of.
    if let Some(ids) = &filters.assignments
        && let Some(few) = few(moment, &format!("assignment WHERE assignment_id IN ({})", list(ids))).await?
    {
        return Ok((Way::Customers(few.clone()), Way::Customers(few)));
    }
    if filters.lines.is_some() || filters.sites.is_some() {
        return Ok((rest(), rest()));
    }
    // Who ever had a plan, or one with a component: rows of a closed run are as they were when it closed.
    let mut plans = filters.plans.clone();
    if let Some(ids) = filters.components.as_ref().filter(|_| plans.is_none()) {
        plans = plans_with(moment, ids, partitions).await?;
    }
    if plans.as_ref().is_some_and(Vec::is_empty) {
        return Ok((Way::Customers(Vec::new()), Way::Customers(Vec::new())));
    }
    if let Some(ids) = plans {
        let (partitions, plans) = (list(partitions), list(ids));
        let having =
            format!("plan_customer WHERE partition IN ({partitions}) AND inclusive_usage_plan_id IN ({plans})");
        if let Some(few) = few(moment, &having).await? {
            return Ok((Way::Customers(few.clone()), Way::Customers(few)));
        }
        let count = format!("SELECT CAST(count(*) AS bigint) FROM (SELECT 1 FROM {having} LIMIT {}) k", MOST + 1);
        let rows = moment.rows(count, 1, false).await?;
        let count = whole(rows.first().and_then(|row| row.numbers[0]))?;
        if count <= MOST {
            let named = format!("SELECT DISTINCT partition, customer_id FROM {having}");
            let many = Way::ManyCustomers { named, count };
            return Ok((many.clone(), many));
        }
    }
    // Owners of stored rows are those of when they were stored.
    if let Some(ids) = &question.owners
        && let Some(few) = few(moment, &format!("customer WHERE contract_owner_id IN ({})", list(ids))).await?
    {
        return Ok((Way::Customers(few), rest()));
    }
    Ok((rest(), rest()))
}

/// The plans that ever had one of these components, if those are few.
async fn plans_with<M: Moment>(
    moment: &mut M,
    components: &[i64],
    partitions: &[i32],
) -> Result<Option<Vec<i64>>, StoreError> {
    let statement = format!(
        "SELECT inclusive_usage_plan_id FROM component_plan WHERE partition IN ({}) AND component_id IN ({}) LIMIT {}",
        list(partitions),
        list(components),
        MOST_NAMED + 1
    );
    let rows = moment.rows(statement, 1, false).await?;
    let is_whole = rows.len() <= MOST_NAMED;
    // Each partition names its own.
    let plans = rows.into_iter().map(|row| whole(row.numbers[0])).collect::<Result<BTreeSet<i64>, _>>()?;
    Ok((is_whole && plans.len() <= FEW).then(|| plans.into_iter().collect()))
}

/// The customers of some rows, if those are few.
async fn few<M: Moment>(moment: &mut M, rows: &str) -> Result<Option<Vec<(i32, i64)>>, StoreError> {
    let statement = format!("SELECT CAST(partition AS bigint), customer_id FROM {rows} LIMIT {}", FEW + 1);
    let rows = moment.rows(statement, 2, false).await?;
    if rows.len() > FEW {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    for row in rows {
        found.insert((small(row.numbers[0])?, whole(row.numbers[1])?));
    }
    Ok(Some(found.into_iter().collect()))
}
