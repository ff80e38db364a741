//! What the relay reads and writes: its lease, the outbox, and what is known to be published.

use sqlx::postgres::PgPool;
use sqlx::{Error, Row};
use uuid::Uuid;

use crate::store::{AlertRow, AlertsOffset, Partitioned, Published, RelayState};

/// Takes or keeps the lease; false while another holds it.
pub(super) async fn lease(pool: &PgPool, holder: Uuid, seconds: u32) -> Result<bool, Error> {
    let taken = sqlx::query(
        "INSERT INTO relay_lease (id, holder, until) VALUES (1, $1, now() + make_interval(secs => $2)) \
         ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until \
         WHERE relay_lease.holder = excluded.holder OR relay_lease.until < now()",
    )
    .bind(holder)
    .bind(f64::from(seconds))
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

pub(super) async fn state(pool: &PgPool) -> Result<RelayState, Error> {
    let numbers = sqlx::query("SELECT partition, number FROM relay_number").fetch_all(pool).await?;
    let offsets = sqlx::query("SELECT partition, next_offset FROM relay_offset").fetch_all(pool).await?;
    Ok(RelayState {
        numbers: numbers
            .iter()
            .map(|row| Ok(Partitioned { partition: row.try_get("partition")?, value: row.try_get("number")? }))
            .collect::<Result<_, Error>>()?,
        offsets: offsets
            .iter()
            .map(|row| Ok(AlertsOffset { partition: row.try_get("partition")?, next: row.try_get("next_offset")? }))
            .collect::<Result<_, Error>>()?,
    })
}

pub(super) async fn outbox_numbers(pool: &PgPool) -> Result<Vec<Partitioned<i64>>, Error> {
    let rows = sqlx::query("SELECT partition, outbox_number FROM progress ORDER BY partition").fetch_all(pool).await?;
    rows.iter()
        .map(|row| Ok(Partitioned { partition: row.try_get("partition")?, value: row.try_get("outbox_number")? }))
        .collect()
}

pub(super) async fn outbox(
    pool: &PgPool,
    partition: i32,
    after: i64,
    rows: usize,
    bytes: usize,
) -> Result<Vec<AlertRow>, Error> {
    let rows = sqlx::query(
        "SELECT number, customer_id, body FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY number) - \
         octet_length(body) before FROM (SELECT number, customer_id, body FROM outbox \
         WHERE partition = $1 AND number > $2 ORDER BY number LIMIT $3) o) o WHERE before < $4 ORDER BY number",
    )
    .bind(partition)
    .bind(after)
    .bind(i64::try_from(rows).unwrap_or(i64::MAX))
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AlertRow {
                number: row.try_get("number")?,
                customer: row.try_get("customer_id")?,
                body: row.try_get("body")?,
            })
        })
        .collect()
}

/// Notes what is on the topic, and lets those alerts leave the outbox; false when the store does not know what it should.
pub(super) async fn published(pool: &PgPool, published: &Published) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    for (known, before) in published.moves() {
        let statement = match before {
            None => "INSERT INTO relay_offset (partition, next_offset) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            Some(_) => "UPDATE relay_offset SET next_offset = $2 WHERE partition = $1 AND next_offset = $3",
        };
        let moving = sqlx::query(statement).bind(known.partition).bind(known.next);
        let moving = if before.is_some() { moving.bind(before) } else { moving };
        if moving.execute(&mut *transaction).await?.rows_affected() != 1 {
            return Ok(false);
        }
    }
    for known in &published.numbers {
        sqlx::query(
            "INSERT INTO relay_number (partition, number) VALUES ($1, $2) \
             ON CONFLICT (partition) DO UPDATE SET number = greatest(relay_number.number, excluded.number)",
        )
        .bind(known.partition)
        .bind(known.value)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM outbox WHERE partition = $1 AND number <= $2")
            .bind(known.partition)
            .bind(known.value)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}
