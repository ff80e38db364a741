//! Where partition pairs stand, and the gaps that stop them.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Error, Row};

use super::behind;
use super::write::begin;
use crate::domain::Instant;
use crate::store::{AcceptedGap, AppliedUpTo, Commit, Gaps, Offsets, Progress};

pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<Progress>, Error> {
    let mut transaction = pool.begin().await?;
    let rows = sqlx::query("SELECT * FROM progress ORDER BY partition").fetch_all(&mut *transaction).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut progress = progress_of(row)?;
        let behind = behind::read(&mut transaction, progress.partition).await?;
        progress.offsets = behind.iter().fold(progress.offsets, |first, behind| first.earlier(behind.offsets));
        all.push(progress);
    }
    Ok(all)
}

/// A row of the table.
pub(super) fn progress_of(row: &SqliteRow) -> Result<Progress, Error> {
    Ok(Progress {
        partition: row.try_get("partition")?,
        epoch: row.try_get("epoch")?,
        offsets: Offsets { usage: row.try_get("usage_offset")?, assignments: row.try_get("assignments_offset")? },
        outbox_number: row.try_get("outbox_number")?,
        commits: row.try_get("commits")?,
        gaps: Gaps { usage: row.try_get("usage_gap")?, assignments: row.try_get("assignments_gap")? },
    })
}

/// Notes up to what times partitions have applied things.
pub(super) async fn note_applied(pool: &SqlitePool, applied: &[AppliedUpTo]) -> Result<(), Error> {
    let mut transaction = begin(pool).await?;
    for of in applied {
        // Of a time and none the time, of two the later.
        sqlx::query(
            "UPDATE progress SET applied_at = coalesce(max(applied_at, ?3), ?3, applied_at), \
             facts_at = coalesce(max(facts_at, ?4), ?4, facts_at), runs_at = coalesce(max(runs_at, ?5), ?5, runs_at) \
             WHERE partition = ?1 AND epoch = ?2",
        )
        .bind(of.partition)
        .bind(of.epoch)
        .bind(of.all.map(Instant::micros))
        .bind(of.facts.map(Instant::micros))
        .bind(of.runs.map(Instant::micros))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

pub(super) async fn facts_at(pool: &SqlitePool) -> Result<Option<Instant>, Error> {
    let statement = "SELECT CASE WHEN count(facts_at) = count(*) THEN min(facts_at) END FROM progress";
    let at: Option<i64> = sqlx::query_scalar(statement).fetch_one(pool).await?;
    Ok(at.map(Instant::from_micros))
}

pub(super) async fn note_gaps(pool: &SqlitePool, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, Error> {
    let noted = sqlx::query(
        "UPDATE progress SET usage_gap = usage_gap OR ?3, assignments_gap = assignments_gap OR ?4 \
         WHERE partition = ?1 AND epoch = ?2",
    )
    .bind(partition)
    .bind(epoch)
    .bind(gaps.usage)
    .bind(gaps.assignments)
    .execute(pool)
    .await?;
    Ok(noted.rows_affected() == 1)
}

pub(super) async fn accept_gap(pool: &SqlitePool, accepted: &AcceptedGap) -> Result<bool, Error> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let row = sqlx::query("SELECT * FROM progress WHERE partition = ?1").bind(accepted.partition);
    let Some(row) = row.fetch_optional(&mut *transaction).await? else { return Ok(false) };
    let own = progress_of(&row)?.offsets;
    let mut behind = behind::read(&mut transaction, accepted.partition).await?;
    let first = behind.iter().fold(own, |first, behind| first.earlier(behind.offsets));
    if first != accepted.seen {
        return Ok(false);
    }
    let offsets = own.over_gap(first, accepted.offsets);
    let moved = sqlx::query(
        "UPDATE progress SET epoch = epoch + 1, usage_offset = ?3, assignments_offset = ?4, usage_gap = ?5, \
         assignments_gap = ?6 WHERE partition = ?1 AND epoch = ?2",
    )
    .bind(accepted.partition)
    .bind(accepted.epoch)
    .bind(offsets.usage)
    .bind(offsets.assignments)
    .bind(accepted.gaps.usage)
    .bind(accepted.gaps.assignments)
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    behind.iter_mut().for_each(|behind| behind.offsets = behind.offsets.over_gap(first, accepted.offsets));
    behind::write(&mut transaction, &Commit { partition: accepted.partition, behind, ..Commit::default() }).await?;
    // Records that retention took leave no places to others.
    if accepted.offsets.earlier(first) == accepted.offsets {
        sqlx::query(
            "UPDATE dead_letter SET topic = topic || '~' || ?4 WHERE partition = ?1 AND topic = ?2 AND \"offset\" >= ?3",
        )
        .bind(accepted.partition)
        .bind(&accepted.topic)
        .bind(accepted.next)
        .bind((accepted.epoch + 1).to_string())
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(true)
}
