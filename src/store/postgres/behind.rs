//! Customers whose records are applied later than the others' of their partition.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Error, Row};

use super::types::{Timestamp, position, uuid_of};
use crate::domain::packed;
use crate::store::{Behind, Commit, Offsets, Unfinished};

/// All of a partition, in any order.
pub(super) async fn read(connection: &mut PgConnection, partition: i32) -> Result<Vec<Behind>, Error> {
    let rows = sqlx::query(
        "SELECT customer_id, usage_offset, assignments_offset, from_start_time, from_event_key, drawn \
         FROM behind WHERE partition = $1",
    )
    .bind(partition)
    .fetch_all(connection)
    .await?;
    rows.iter().map(behind).collect()
}

fn behind(row: &PgRow) -> Result<Behind, Error> {
    let unfinished = match row.try_get::<Option<Timestamp>, _>("from_start_time")? {
        None => None,
        Some(start) => {
            let drawn = packed::unpack_draws(row.try_get("drawn")?);
            let drawn = drawn.ok_or_else(|| Error::Protocol("behind.drawn: damaged".to_owned()))?;
            Some(Unfinished { from: position(start, row.try_get("from_event_key")?), drawn })
        }
    };
    let (usage, assignments) = (row.try_get("usage_offset")?, row.try_get("assignments_offset")?);
    Ok(Behind { customer: row.try_get("customer_id")?, offsets: Offsets { usage, assignments }, unfinished })
}

/// Whether a fold of the customer's usage is not finished.
pub(super) async fn is_unfinished(connection: &mut PgConnection, partition: i32, customer: i64) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM behind WHERE partition = $1 AND customer_id = $2 AND from_start_time IS NOT NULL)",
    )
    .bind(partition)
    .bind(customer)
    .fetch_one(connection)
    .await
}

/// Writes who is behind, and who is not any more. There are few of both.
pub(super) async fn write(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for behind in &commit.behind {
        let unfinished = behind.unfinished.as_ref();
        let drawn = unfinished.map(|unfinished| {
            let mut bytes = Vec::new();
            packed::pack_draws(&unfinished.drawn, &mut bytes);
            bytes
        });
        sqlx::query(
            "INSERT INTO behind (partition, customer_id, usage_offset, assignments_offset, from_start_time, \
             from_event_key, drawn) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (partition, customer_id) DO UPDATE SET usage_offset = excluded.usage_offset, \
             assignments_offset = excluded.assignments_offset, from_start_time = excluded.from_start_time, \
             from_event_key = excluded.from_event_key, drawn = excluded.drawn",
        )
        .bind(commit.partition)
        .bind(behind.customer)
        .bind(behind.offsets.usage)
        .bind(behind.offsets.assignments)
        .bind(unfinished.map(|unfinished| Timestamp(unfinished.from.start)))
        .bind(unfinished.map(|unfinished| uuid_of(unfinished.from.key)))
        .bind(drawn)
        .execute(&mut *connection)
        .await?;
    }
    if !commit.caught_up.is_empty() {
        sqlx::query("DELETE FROM behind WHERE partition = $1 AND customer_id = ANY($2)")
            .bind(commit.partition)
            .bind(&commit.caught_up)
            .execute(connection)
            .await?;
    }
    Ok(())
}
