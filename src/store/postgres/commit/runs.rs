//! What a commit writes of bill runs: what they are, and the rows of those that close.

use sqlx::Error;
use sqlx::postgres::PgConnection;

use crate::domain::{RunFact, StoredPart, StoredRow};
use crate::store::Commit;

pub(super) async fn write(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for row in &commit.bill_runs {
        let run = &row.run;
        sqlx::query(
            "INSERT INTO bill_run (partition, bill_run_id, version, billing_cycle_id, period_start_date, \
             period_end_date, usage_from_date, usage_until_date, status, storing_after, letting_in_after) \
             SELECT $1, $2, $3, $4, date '1970-01-01' + $5::int4, date '1970-01-01' + $6::int4, \
             date '1970-01-01' + $7::int4, date '1970-01-01' + $8::int4, $9, $10, $11 \
             ON CONFLICT (partition, bill_run_id) DO UPDATE SET version = excluded.version, \
             billing_cycle_id = excluded.billing_cycle_id, period_start_date = excluded.period_start_date, \
             period_end_date = excluded.period_end_date, usage_from_date = excluded.usage_from_date, \
             usage_until_date = excluded.usage_until_date, status = excluded.status, \
             storing_after = excluded.storing_after, letting_in_after = excluded.letting_in_after",
        )
        .bind(commit.partition)
        .bind(run.id)
        .bind(row.version)
        .bind(run.billing_cycle)
        .bind(run.period_start.days())
        .bind(run.period_end.days())
        .bind(run.usage_from.days())
        .bind(run.usage_until.days())
        .bind(i16::from(run.status.number()))
        .bind(row.storing)
        .bind(row.letting_in)
        .execute(&mut *connection)
        .await?;
    }
    write_fact(connection, commit).await?;
    write_stored(connection, commit).await
}

/// What other partitions are to apply too.
async fn write_fact(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if let Some(RunFact { version, run }) = &commit.run_fact {
        sqlx::query(
            "INSERT INTO bill_run_fact (partition, number, bill_run_id, version, billing_cycle_id, period_start_date, period_end_date, \
             usage_from_date, usage_until_date, status) \
             SELECT $1, $2, $3, $4, $5, date '1970-01-01' + $6::int4, date '1970-01-01' + $7::int4, \
             date '1970-01-01' + $8::int4, date '1970-01-01' + $9::int4, $10",
        )
        .bind(commit.partition)
        .bind(commit.commits + 1)
        .bind(run.id)
        .bind(version)
        .bind(run.billing_cycle)
        .bind(run.period_start.days())
        .bind(run.period_end.days())
        .bind(run.usage_from.days())
        .bind(run.usage_until.days())
        .bind(i16::from(run.status.number()))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The rows of closing bill runs, and what goes with them.
async fn write_stored(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for (table, runs) in [
        ("stored_row", &commit.reopened_runs),
        ("stored_ahead", &commit.reopened_runs),
        ("stored_ahead", &commit.stored_runs),
    ] {
        if !runs.is_empty() {
            let statement = format!("DELETE FROM {table} WHERE partition = $1 AND bill_run_id = ANY($2)");
            sqlx::query(&statement).bind(commit.partition).bind(runs).execute(&mut *connection).await?;
        }
    }
    if !commit.stored_rows.is_empty() {
        let rows = &commit.stored_rows;
        let column = |pick: fn(&StoredRow) -> i64| rows.iter().map(pick).collect::<Vec<i64>>();
        let lists = |pick: fn(&StoredPart) -> i64| -> Vec<String> {
            let list = |row: &StoredRow| row.parts.iter().map(|part| pick(part).to_string()).collect::<Vec<_>>();
            rows.iter().map(|row| format!("{{{}}}", list(row).join(","))).collect()
        };
        sqlx::query(
            "INSERT INTO stored_row (partition, bill_run_id, customer_id, usage_product_inventory_id, site_id, \
             contract_owner_id, entries, period_start_date, period_end_date, assignment_ids, inclusive_usage_plan_ids, \
             component_ids) SELECT $1, run, customer, upi, site, owner, entries, date '1970-01-01' + period_start, \
             date '1970-01-01' + period_end, assignments::int8[], plans::int8[], components::int8[] \
             FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::int4[], $9::int4[], \
             $10::text[], $11::text[], $12::text[]) \
             u(run, customer, upi, site, owner, entries, period_start, period_end, assignments, plans, components)",
        )
        .bind(commit.partition)
        .bind(column(|row| row.bill_run))
        .bind(column(|row| row.customer))
        .bind(column(|row| row.upi))
        .bind(rows.iter().map(|row| row.site).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.contract_owner).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.entries.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.period_start.days()).collect::<Vec<i32>>())
        .bind(rows.iter().map(|row| row.period_end.days()).collect::<Vec<i32>>())
        .bind(lists(|part| part.assignment))
        .bind(lists(|part| part.plan))
        .bind(lists(|part| part.component))
        .execute(&mut *connection)
        .await?;
    }
    if !commit.stored_ahead.is_empty() {
        sqlx::query(
            "INSERT INTO stored_ahead (partition, bill_run_id, customer_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[])",
        )
        .bind(commit.partition)
        .bind(commit.stored_ahead.iter().map(|ahead| ahead.bill_run).collect::<Vec<i64>>())
        .bind(commit.stored_ahead.iter().map(|ahead| ahead.customer).collect::<Vec<i64>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}
