//! What the query reads: bill runs and accounts, all as they are at one moment.

use std::collections::BTreeMap;

use sqlx::postgres::PgPool;
use sqlx::{Error, Row};

use super::load;
use crate::domain::AccountImage;
use crate::store::{Partitioned, ReadView, Selection};

pub(super) async fn read(pool: &PgPool, selection: &Selection) -> Result<ReadView, Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    let runs = sqlx::query(
        "SELECT partition, bill_run_id, version, billing_cycle_id, status, \
         period_start_date - date '1970-01-01' period_start, period_end_date - date '1970-01-01' period_end, \
         usage_from_date - date '1970-01-01' usage_from, usage_until_date - date '1970-01-01' usage_until \
         FROM bill_run",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let rows = sqlx::query(
        "SELECT partition, customer_id, version, billing_cycle_id, contract_owner_id, next_slot, \
         NULL::timestamptz latest_usage FROM customer c \
         WHERE ($1::int8[] IS NULL OR customer_id = ANY($1)) AND ($2::int8[] IS NULL OR customer_id IN \
         (SELECT customer_id FROM line WHERE usage_product_inventory_id = ANY($2) \
          UNION SELECT customer_id FROM assignment WHERE level = 0 AND scope = ANY($2)))",
    )
    .bind(selection.customers.as_deref())
    .bind(selection.lines.as_deref())
    .fetch_all(&mut *transaction)
    .await?;
    let mut by_partition: BTreeMap<i32, BTreeMap<i64, AccountImage>> = BTreeMap::new();
    for row in &rows {
        let image = load::customer(row)?;
        by_partition.entry(row.try_get("partition")?).or_default().insert(image.customer, image);
    }
    let mut view = ReadView {
        bill_runs: runs.iter().map(load::bill_run).collect::<Result<_, _>>()?,
        accounts: Vec::with_capacity(rows.len()),
    };
    for (partition, mut images) in by_partition {
        let customers: Vec<i64> = images.keys().copied().collect();
        load::add_parts(&mut transaction, partition, &customers, &mut images).await?;
        view.accounts.extend(images.into_values().map(|value| Partitioned { partition, value }));
    }
    transaction.commit().await?;
    Ok(view)
}
