//! What the query reads: bill runs and accounts, all as they are at one moment.

use std::collections::BTreeMap;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Error, Row};

use super::load;
use crate::domain::{AccountImage, Date, StoredRow};
use crate::store::{BillRunOfPartition, Partitioned, ReadView, Selection};

pub(super) async fn read(pool: &PgPool, selection: &Selection) -> Result<ReadView, Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    let runs = sqlx::query(
        "SELECT partition, bill_run_id, version, billing_cycle_id, status, closings, storing_after, \
         period_start_date - date '1970-01-01' period_start, period_end_date - date '1970-01-01' period_end, \
         usage_from_date - date '1970-01-01' usage_from, usage_until_date - date '1970-01-01' usage_until \
         FROM bill_run",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let bill_runs: Vec<BillRunOfPartition> = runs.iter().map(load::bill_run).collect::<Result<_, _>>()?;
    let mut view = ReadView { bill_runs, ..ReadView::default() };
    if selection.bill_runs.is_some() {
        add_stored(&mut transaction, selection, &mut view).await?;
    }
    if selection.needs_accounts(&view.bill_runs) {
        add_accounts(&mut transaction, selection, &mut view).await?;
    }
    transaction.commit().await?;
    Ok(view)
}

/// Adds the stored rows of the bill runs asked for.
async fn add_stored(connection: &mut PgConnection, selection: &Selection, view: &mut ReadView) -> Result<(), Error> {
    let rows = sqlx::query(
        "SELECT partition, bill_run_id, customer_id, usage_product_inventory_id, site_id, contract_owner_id, entries, \
         period_start_date - date '1970-01-01' period_start, period_end_date - date '1970-01-01' period_end \
         FROM stored_row WHERE bill_run_id = ANY($1) AND ($2::int8[] IS NULL OR customer_id = ANY($2)) \
         AND ($3::int8[] IS NULL OR usage_product_inventory_id = ANY($3))",
    )
    .bind(selection.bill_runs.as_deref())
    .bind(selection.customers.as_deref())
    .bind(selection.lines.as_deref())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let value = StoredRow {
            bill_run: row.try_get("bill_run_id")?,
            customer: row.try_get("customer_id")?,
            upi: row.try_get("usage_product_inventory_id")?,
            site: row.try_get("site_id")?,
            contract_owner: row.try_get("contract_owner_id")?,
            period_start: Date::from_days(row.try_get("period_start")?),
            period_end: Date::from_days(row.try_get("period_end")?),
            entries: row.try_get("entries")?,
        };
        view.stored_rows.push(Partitioned { partition: row.try_get("partition")?, value });
    }
    let rows = sqlx::query("SELECT partition, bill_run_id, customer_id FROM stored_ahead WHERE bill_run_id = ANY($1)")
        .bind(selection.bill_runs.as_deref())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        view.stored_ahead.push(Partitioned { partition: row.try_get("partition")?, value: load::stored_ahead(row)? });
    }
    Ok(())
}

/// Adds the accounts selected.
async fn add_accounts(connection: &mut PgConnection, selection: &Selection, view: &mut ReadView) -> Result<(), Error> {
    let rows = sqlx::query(
        "SELECT partition, customer_id, version, billing_cycle_id, contract_owner_id, next_slot, \
         NULL::timestamptz latest_usage FROM customer c \
         WHERE ($1::int8[] IS NULL OR customer_id = ANY($1)) AND ($2::int8[] IS NULL OR customer_id IN \
         (SELECT customer_id FROM line WHERE usage_product_inventory_id = ANY($2) \
          UNION SELECT customer_id FROM assignment WHERE level = 0 AND scope = ANY($2)))",
    )
    .bind(selection.customers.as_deref())
    .bind(selection.lines.as_deref())
    .fetch_all(&mut *connection)
    .await?;
    let mut by_partition: BTreeMap<i32, BTreeMap<i64, AccountImage>> = BTreeMap::new();
    for row in &rows {
        let image = load::customer(row)?;
        by_partition.entry(row.try_get("partition")?).or_default().insert(image.customer, image);
    }
    for (partition, mut images) in by_partition {
        let customers: Vec<i64> = images.keys().copied().collect();
        load::add_parts(connection, partition, &customers, &mut images).await?;
        view.accounts.extend(images.into_values().map(|value| Partitioned { partition, value }));
    }
    Ok(())
}
