//! Where partition pairs stand, and the gaps that stop them.

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Error, Row};

use crate::store::{AcceptedGap, Gaps, Offsets, Progress};

pub(super) async fn all(pool: &PgPool) -> Result<Vec<Progress>, Error> {
    let rows = sqlx::query("SELECT * FROM progress ORDER BY partition").fetch_all(pool).await?;
    rows.iter().map(progress_of).collect()
}

/// A row of the table.
pub(super) fn progress_of(row: &PgRow) -> Result<Progress, Error> {
    Ok(Progress {
        partition: row.try_get("partition")?,
        epoch: row.try_get("epoch")?,
        offsets: Offsets { usage: row.try_get("usage_offset")?, assignments: row.try_get("assignments_offset")? },
        outbox_number: row.try_get("outbox_number")?,
        gaps: Gaps { usage: row.try_get("usage_gap")?, assignments: row.try_get("assignments_gap")? },
    })
}

pub(super) async fn note_gaps(pool: &PgPool, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, Error> {
    let noted = sqlx::query(
        "UPDATE progress SET usage_gap = usage_gap OR $3, assignments_gap = assignments_gap OR $4 \
         WHERE partition = $1 AND epoch = $2",
    )
    .bind(partition)
    .bind(epoch)
    .bind(gaps.usage)
    .bind(gaps.assignments)
    .execute(pool)
    .await?;
    Ok(noted.rows_affected() == 1)
}

pub(super) async fn accept_gap(pool: &PgPool, accepted: &AcceptedGap) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let moved = sqlx::query(
        "UPDATE progress SET epoch = epoch + 1, usage_offset = $3, assignments_offset = $4, usage_gap = $5, \
         assignments_gap = $6 WHERE partition = $1 AND epoch = $2",
    )
    .bind(accepted.partition)
    .bind(accepted.epoch)
    .bind(accepted.offsets.usage)
    .bind(accepted.offsets.assignments)
    .bind(accepted.gaps.usage)
    .bind(accepted.gaps.assignments)
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE dead_letter SET topic = topic || '~' || $4::text WHERE partition = $1 AND topic = $2 AND \"offset\" >= $3",
    )
    .bind(accepted.partition)
    .bind(&accepted.topic)
    .bind(accepted.next)
    .bind((accepted.epoch + 1).to_string())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}
