//! Customers whose records are applied later than the others' of their partition.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row};

use super::read::{key, key_bytes};
use crate::domain::{Instant, Position, packed};
use crate::store::{Behind, Commit, Offsets, Unfinished};

/// All of a partition, in any order.
pub(super) async fn read(connection: &mut SqliteConnection, partition: i32) -> Result<Vec<Behind>, Error> {
    let rows = sqlx::query("SELECT * FROM behind WHERE partition = ?").bind(partition).fetch_all(connection).await?;
    rows.iter().map(behind).collect()
}

fn behind(row: &SqliteRow) -> Result<Behind, Error> {
    let unfinished = match row.try_get::<Option<i64>, _>("from_start_time")? {
        None => None,
        Some(start) => {
            let drawn = packed::unpack_draws(row.try_get("drawn")?);
            let drawn = drawn.ok_or_else(|| Error::Protocol("behind.drawn: damaged".to_owned()))?;
            let from = Position { start: Instant::from_micros(start), key: key(row, "from_event_key")? };
            Some(Unfinished { from, drawn })
        }
    };
    let (usage, assignments) = (row.try_get("usage_offset")?, row.try_get("assignments_offset")?);
    Ok(Behind { customer: row.try_get("customer_id")?, offsets: Offsets { usage, assignments }, unfinished })
}

/// Whether a fold of the customer's usage is not finished.
pub(super) async fn is_unfinished(
    connection: &mut SqliteConnection,
    partition: i32,
    customer: i64,
) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM behind WHERE partition = ? AND customer_id = ? AND from_start_time IS NOT NULL)",
    )
    .bind(partition)
    .bind(customer)
    .fetch_one(connection)
    .await
}

/// Writes who is behind, and who is not any more. There are few of both.
pub(super) async fn write(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for behind in &commit.behind {
        let unfinished = behind.unfinished.as_ref();
        let drawn = unfinished.map(|unfinished| {
            let mut bytes = Vec::new();
            packed::pack_draws(&unfinished.drawn, &mut bytes);
            bytes
        });
        sqlx::query(
            "INSERT OR REPLACE INTO behind (partition, customer_id, usage_offset, assignments_offset, \
             from_start_time, from_event_key, drawn) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(behind.customer)
        .bind(behind.offsets.usage)
        .bind(behind.offsets.assignments)
        .bind(unfinished.map(|unfinished| unfinished.from.start.micros()))
        .bind(unfinished.map(|unfinished| key_bytes(unfinished.from.key)))
        .bind(drawn)
        .execute(&mut *connection)
        .await?;
    }
    for customer in &commit.caught_up {
        sqlx::query("DELETE FROM behind WHERE partition = ? AND customer_id = ?")
            .bind(commit.partition)
            .bind(customer)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
