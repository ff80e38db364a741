//! What a commit writes of lines, and of where they stand.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Error, Postgres};
use uuid::Uuid;

use super::super::types::{Timestamp, uuid_of};
use crate::domain::{Instant, Inventory, LastUsage, LineRow, StandingRow};
use crate::store::{Commit, OfCustomer};

pub(super) async fn write(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.changed_lines.is_empty() {
        let query = sqlx::query(
            "UPDATE line l SET version = u.version, site_id = u.site_id, usage_product_id = u.usage_product_id, \
             last_start_time = u.last_start_time, last_event_key = u.last_event_key, last_site_id = u.last_site_id, \
             last_usage_product_id = u.last_usage_product_id \
             FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::timestamptz[], $8::uuid[], \
             $9::int8[], $10::int8[]) u(customer_id, upi, version, site_id, usage_product_id, last_start_time, \
             last_event_key, last_site_id, last_usage_product_id) WHERE l.partition = $1 \
             AND l.customer_id = u.customer_id AND l.usage_product_inventory_id = u.upi",
        );
        bind_lines(query.bind(commit.partition), &commit.changed_lines).execute(&mut *connection).await?;
    }
    if !commit.new_lines.is_empty() {
        let query = sqlx::query(
            "INSERT INTO line (partition, customer_id, usage_product_inventory_id, version, site_id, \
             usage_product_id, last_start_time, last_event_key, last_site_id, last_usage_product_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::timestamptz[], \
             $8::uuid[], $9::int8[], $10::int8[])",
        );
        bind_lines(query.bind(commit.partition), &commit.new_lines).execute(&mut *connection).await?;
    }
    if !commit.removed_lines.is_empty() {
        sqlx::query(
            "DELETE FROM line l USING unnest($2::int8[], $3::int8[]) g(customer_id, upi) WHERE l.partition = $1 \
             AND l.customer_id = g.customer_id AND l.usage_product_inventory_id = g.upi",
        )
        .bind(commit.partition)
        .bind(commit.removed_lines.iter().map(|line| line.0).collect::<Vec<i64>>())
        .bind(commit.removed_lines.iter().map(|line| line.1).collect::<Vec<i64>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Where lines stand.
pub(super) async fn write_standing(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.standing_anew.is_empty() {
        sqlx::query("DELETE FROM standing_row WHERE partition = $1 AND customer_id = ANY($2)")
            .bind(commit.partition)
            .bind(&commit.standing_anew)
            .execute(&mut *connection)
            .await?;
    }
    if !commit.removed_standing.is_empty() {
        let gone = &commit.removed_standing;
        sqlx::query(
            "DELETE FROM standing_row s USING unnest($2::int8[], $3::int8[], $4::int8[]) g(customer_id, upi, from_micros) \
             WHERE s.partition = $1 AND s.customer_id = g.customer_id AND s.usage_product_inventory_id = g.upi \
             AND s.from_micros = g.from_micros",
        )
        .bind(commit.partition)
        .bind(gone.iter().map(|place| place.0).collect::<Vec<i64>>())
        .bind(gone.iter().map(|place| place.1).collect::<Vec<i64>>())
        .bind(gone.iter().map(|place| place.2.micros()).collect::<Vec<i64>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.standing.is_empty() {
        let rows = &commit.standing;
        let optional = |pick: fn(&StandingRow) -> Option<i64>| -> Vec<Option<i64>> {
            rows.iter().map(|of| pick(&of.row)).collect()
        };
        sqlx::query(
            "INSERT INTO standing_row (partition, customer_id, usage_product_inventory_id, from_micros, until_micros, \
             after_micros, billing_cycle_id, site_id, usage_product_id, contract_owner_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], \
             $8::int8[], $9::int8[], $10::int8[]) \
             ON CONFLICT (partition, customer_id, usage_product_inventory_id, from_micros) DO UPDATE SET \
             until_micros = excluded.until_micros, after_micros = excluded.after_micros, \
             billing_cycle_id = excluded.billing_cycle_id, site_id = excluded.site_id, \
             usage_product_id = excluded.usage_product_id, contract_owner_id = excluded.contract_owner_id",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.upi).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.from.micros()).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.until.micros()).collect::<Vec<i64>>())
        .bind(optional(|row| row.after.map(Instant::micros)))
        .bind(rows.iter().map(|of| of.row.cycle).collect::<Vec<i64>>())
        .bind(optional(|row| row.site))
        .bind(optional(|row| row.product))
        .bind(optional(|row| row.contract_owner))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Binds lines: customers, lines, what inventory.changed says of them, and their last usage.
fn bind_lines<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &[OfCustomer<LineRow>],
) -> Query<'q, Postgres, PgArguments> {
    let fact = |pick: fn(&Inventory) -> i64| -> Vec<Option<i64>> {
        rows.iter().map(|of| of.row.fact.as_ref().map(|fact| pick(&fact.1))).collect()
    };
    let last = |pick: fn(&LastUsage) -> i64| -> Vec<Option<i64>> {
        rows.iter().map(|of| of.row.last_usage.as_ref().map(pick)).collect()
    };
    let positions = || rows.iter().map(|of| of.row.last_usage.map(|usage| usage.position));
    query
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.upi).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.fact.map(|fact| fact.0)).collect::<Vec<Option<i64>>>())
        .bind(fact(|inventory| inventory.site))
        .bind(fact(|inventory| inventory.product))
        .bind(positions().map(|last| last.map(|last| Timestamp(last.start))).collect::<Vec<Option<Timestamp>>>())
        .bind(positions().map(|last| last.map(|last| uuid_of(last.key))).collect::<Vec<Option<Uuid>>>())
        .bind(last(|usage| usage.site))
        .bind(last(|usage| usage.product))
}
