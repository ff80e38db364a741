//! What the relay reads and writes: its lease, the outbox, and what is known to be published.

use sqlx::postgres::PgPool;
use sqlx::{Error, Row};
use uuid::Uuid;

use crate::store::{AlertRow, AlertsOffset, OutboxPart, Partitioned, Published, RelayState};

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

/// The alerts of these parts in one answer: a relay asks again and again, of every partition.
pub(super) async fn outbox(
    pool: &PgPool,
    parts: &[OutboxPart],
    bytes: usize,
) -> Result<Vec<Partitioned<AlertRow>>, Error> {
    let rows = sqlx::query(
        "SELECT partition, number, customer_id, body FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY partition, \
         number) - octet_length(body) before FROM (SELECT o.* FROM unnest($1::int4[], $2::int8[], $3::int8[]) \
         part(partition, after, rows) CROSS JOIN LATERAL (SELECT o.partition, o.number, o.customer_id, o.body \
         FROM outbox o WHERE o.partition = part.partition AND o.number > part.after ORDER BY o.number LIMIT part.rows) o) o) o \
         WHERE before < $4 ORDER BY partition, number",
    )
    .bind(parts.iter().map(|part| part.partition).collect::<Vec<i32>>())
    .bind(parts.iter().map(|part| part.after).collect::<Vec<i64>>())
    .bind(parts.iter().map(|part| i64::try_from(part.rows).unwrap_or(i64::MAX)).collect::<Vec<i64>>())
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let value = AlertRow {
                number: row.try_get("number")?,
                customer: row.try_get("customer_id")?,
                body: row.try_get("body")?,
            };
            Ok(Partitioned { partition: row.try_get("partition")?, value })
        })
        .collect()
}

/// Notes what is on the topic, and lets those alerts leave the outbox; false when the store does not know what it should.
pub(super) async fn published(pool: &PgPool, published: &Published) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let (known, new): (Vec<_>, Vec<_>) = published.moves().partition(|(_, before)| before.is_some());
    for (moves, statement) in [
        (
            known,
            "UPDATE relay_offset r SET next_offset = moved.next FROM unnest($1::int4[], $2::int8[], $3::int8[]) \
             moved(partition, next, before) WHERE r.partition = moved.partition AND r.next_offset = moved.before",
        ),
        (
            new,
            "INSERT INTO relay_offset (partition, next_offset) SELECT partition, next \
             FROM unnest($1::int4[], $2::int8[], $3::int8[]) moved(partition, next, before) ON CONFLICT DO NOTHING",
        ),
    ] {
        if moves.is_empty() {
            continue;
        }
        let moved = sqlx::query(statement)
            .bind(moves.iter().map(|(known, _)| known.partition).collect::<Vec<i32>>())
            .bind(moves.iter().map(|(known, _)| known.next).collect::<Vec<i64>>())
            .bind(moves.iter().map(|(_, before)| *before).collect::<Vec<Option<i64>>>())
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != moves.len() as u64 {
            return Ok(false);
        }
    }
    let partitions: Vec<i32> = published.numbers.iter().map(|known| known.partition).collect();
    let numbers: Vec<i64> = published.numbers.iter().map(|known| known.value).collect();
    for statement in [
        "INSERT INTO relay_number (partition, number) SELECT * FROM unnest($1::int4[], $2::int8[]) \
         ON CONFLICT (partition) DO UPDATE SET number = greatest(relay_number.number, excluded.number)",
        "DELETE FROM outbox o USING unnest($1::int4[], $2::int8[]) known(partition, number) \
         WHERE o.partition = known.partition AND o.number <= known.number",
    ] {
        sqlx::query(statement).bind(&partitions).bind(&numbers).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}
