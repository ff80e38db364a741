//! One transaction for a batch. Its first statement is the fence: nothing is written by whoever lost the partition.

mod buckets;
mod facts;
mod lines;
mod runs;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection as _, Error, Postgres};
use uuid::Uuid;

use super::types::{Timestamp, uuid_of};
use super::{behind, copy, repair};
use crate::domain::Position;
use crate::failpoint;
use crate::store::{Commit, CommitError, StoreError, hex};

/// A connection that goes back to its pool only once what was begun on it came to its end. Of a COPY that nobody waits for
/// any more, since the partition was taken away, sqlx 0.8 forgets that an answer is yet to come: it gives the connection for a
/// ready one, and whoever asks next takes that answer for his own, and his own goes to the one after him.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Closed without a word: the database takes back what was not committed.
            drop(connection.detach());
        }
    }
}

/// Writes a commit, all of it or nothing.
pub(super) async fn write(
    pool: &PgPool,
    commit: &Commit,
    describe: impl Fn(&Error) -> StoreError,
) -> Result<(), CommitError> {
    failpoint::hit("before-fence");
    let connection = pool.acquire().await.map_err(|error| CommitError::Store(describe(&error)))?;
    let mut lent = Lent(Some(connection));
    let written = write_on(lent.0.as_mut().expect("it was lent just now"), commit, describe).await;
    if matches!(written, Ok(()) | Err(CommitError::Fenced(_))) {
        lent.give_back();
    }
    written
}

async fn write_on(
    connection: &mut PgConnection,
    commit: &Commit,
    describe: impl Fn(&Error) -> StoreError,
) -> Result<(), CommitError> {
    let failed = |error: Error| CommitError::Store(describe(&error));
    let mut transaction = connection.begin().await.map_err(failed)?;
    if !fence(&mut transaction, commit).await.map_err(failed)? {
        return Err(CommitError::Fenced(commit.partition));
    }
    failpoint::hit("after-fence");
    write_usage(&mut transaction, commit).await.map_err(failed)?;
    facts::write(&mut transaction, commit).await.map_err(failed)?;
    lines::write(&mut transaction, commit).await.map_err(failed)?;
    lines::write_standing(&mut transaction, commit).await.map_err(failed)?;
    runs::write(&mut transaction, commit).await.map_err(failed)?;
    buckets::write(&mut transaction, commit).await.map_err(failed)?;
    write_rest(&mut transaction, commit).await.map_err(failed)?;
    behind::write(&mut transaction, commit).await.map_err(failed)?;
    if let Some((request, repaired)) = &commit.repaired {
        repair::answer(&mut transaction, request, repaired).await.map_err(failed)?;
    }
    failpoint::hit("before-commit");
    let committed = transaction.commit().await;
    failpoint::hit("after-commit");
    committed.map_err(|error| match describe(&error) {
        // The database said no, so nothing is written.
        StoreError::Failed(line) => CommitError::Store(StoreError::Failed(line)),
        StoreError::Unavailable(line) => CommitError::Unknown(line),
    })
}

/// Moves the progress row on, if it is still this owner's and has all its commits: a store that went back to an earlier state
/// may have lost some that left the offsets where they were.
async fn fence(connection: &mut PgConnection, commit: &Commit) -> Result<bool, Error> {
    let totals = &commit.totals;
    let sums = |sums: &[i128; 3]| sums.iter().map(i128::to_string).collect::<Vec<String>>();
    let moved = sqlx::query(
        "UPDATE progress SET commits = commits + 1, usage_offset = $4, assignments_offset = $5, outbox_number = $6, \
         applied_at = greatest(applied_at, $7), facts_at = greatest(facts_at, $8), runs_at = greatest(runs_at, $9), \
         counted = $10, held = $11, reversed = $12, crossed = $13, recovered = $14, quantity = $15::text[]::numeric[], \
         drawn = $16::text[]::numeric[], drawn_by_value = $17::text[]::numeric[] \
         WHERE partition = $1 AND epoch = $2 AND commits = $3",
    )
    .bind(commit.partition)
    .bind(commit.epoch)
    .bind(commit.commits)
    .bind(commit.next.usage)
    .bind(commit.next.assignments)
    .bind(commit.outbox_number)
    .bind(commit.applied_at.map(Timestamp))
    .bind(commit.facts_at.map(Timestamp))
    .bind(commit.runs_at.map(Timestamp))
    .bind(totals.counted)
    .bind(totals.held)
    .bind(totals.reversed)
    .bind(totals.crossed)
    .bind(totals.recovered)
    .bind(sums(&totals.quantity))
    .bind(sums(&totals.drawn))
    .bind(sums(&totals.drawn_by_value))
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

async fn write_usage(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.usage.is_empty() {
        copy::send(connection, commit).await?;
    }
    if !commit.usage_changes.is_empty() {
        let changes = &commit.usage_changes;
        let (starts, keys) = columns(changes.iter().map(|change| change.row.position));
        // Each row is there. This finds it by its key however little the planner knows of the table: planned for a small one,
        // an update by a join would go through all of the partition's rows for seconds once it has grown.
        sqlx::query(
            "INSERT INTO ledger (partition, customer_id, start_time, event_key, source, state, body, draws) \
             SELECT $1, * FROM unnest($2::int8[], $3::timestamptz[], $4::uuid[], $5::int4[], $6::\"char\"[], $7::bytea[], \
             $8::bytea[]) ON CONFLICT (partition, customer_id, start_time, event_key) \
             DO UPDATE SET state = excluded.state, draws = excluded.draws",
        )
        .bind(commit.partition)
        .bind(changes.iter().map(|change| change.customer).collect::<Vec<i64>>())
        .bind(starts)
        .bind(keys)
        .bind(changes.iter().map(|change| change.row.source).collect::<Vec<i32>>())
        .bind(changes.iter().map(|change| change.row.state.number().cast_signed()).collect::<Vec<i8>>())
        .bind(changes.iter().map(|change| change.row.body.as_slice()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.row.draws.as_slice()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.reversals.is_empty() {
        let (starts, keys) = columns(commit.reversals.iter().map(|row| row.key.position));
        sqlx::query(
            "INSERT INTO reversal (partition, customer_id, start_time, event_key, pending) \
             SELECT $1, * FROM unnest($2::int8[], $3::timestamptz[], $4::uuid[], $5::bool[]) \
             ON CONFLICT (partition, customer_id, start_time, event_key) DO UPDATE SET pending = excluded.pending",
        )
        .bind(commit.partition)
        .bind(commit.reversals.iter().map(|row| row.key.customer).collect::<Vec<i64>>())
        .bind(starts)
        .bind(keys)
        .bind(commit.reversals.iter().map(|row| row.pending).collect::<Vec<bool>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.sources.is_empty() {
        sqlx::query("INSERT INTO source (partition, number, source) SELECT $1, * FROM unnest($2::int4[], $3::bytea[])")
            .bind(commit.partition)
            .bind(commit.sources.iter().map(|(number, _)| *number).collect::<Vec<i32>>())
            .bind(commit.sources.iter().map(|(_, source)| source.as_bytes()).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Positions as two columns.
fn columns(positions: impl Iterator<Item = Position>) -> (Vec<Timestamp>, Vec<Uuid>) {
    positions.map(|position| (Timestamp(position.start), uuid_of(position.key))).unzip()
}

async fn write_rest(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.alerts.is_empty() {
        sqlx::query(
            "INSERT INTO outbox (partition, number, customer_id, body) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::text[])",
        )
        .bind(commit.partition)
        .bind(commit.alerts.iter().map(|alert| alert.number).collect::<Vec<i64>>())
        .bind(commit.alerts.iter().map(|alert| alert.customer).collect::<Vec<i64>>())
        .bind(commit.alerts.iter().map(|alert| alert.body.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    for letter in &commit.dead_letters {
        sqlx::query(
            "INSERT INTO dead_letter (partition, topic, \"offset\", record_timestamp, reason, detail, key, value, \
             headers, customer_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(commit.partition)
        .bind(&letter.topic)
        .bind(letter.offset)
        .bind(letter.timestamp)
        .bind(letter.reason)
        .bind(letter.detail.replace('\0', "\\0"))
        .bind(letter.key.as_deref())
        .bind(letter.value.as_deref())
        .bind(hex::headers_text(&letter.headers))
        .bind(letter.customer)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
