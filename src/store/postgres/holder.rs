//! Who holds a partition's row while another owner waits for it.
//!
//! A worker that stops in the middle of a COPY keeps its transaction for as long as it stands still: to the database it
//! is busy, not idle. The group has named another owner by then, and the epoch would refuse what it wrote: its session is
//! ended, so that the partition moves. Sessions of others are named, never ended.

use sqlx::postgres::PgPool;
use sqlx::{Error, Row};

/// Ends the session of a worker of this database that holds the partition's row. Returns whose session it is otherwise,
/// in words.
pub(super) async fn end(pool: &PgPool, partition: i32) -> Result<Option<String>, Error> {
    // A row that is held has its holder's transaction in xmax.
    let holder = sqlx::query(
        "SELECT a.pid, a.application_name, a.usename::text usename, \
         CASE WHEN a.application_name = 'headroom' AND a.usename = current_user THEN pg_terminate_backend(a.pid) END ended \
         FROM progress p JOIN pg_stat_activity a ON a.backend_xid = p.xmax AND a.datname = current_database() \
         WHERE p.partition = $1",
    )
    .bind(partition)
    .fetch_optional(pool)
    .await?;
    let Some(row) = holder else { return Ok(None) };
    if row.try_get::<Option<bool>, _>("ended")? == Some(true) {
        return Ok(None);
    }
    let (pid, user) = (row.try_get::<i32, _>("pid")?, row.try_get::<Option<String>, _>("usename")?);
    let application = row.try_get::<Option<String>, _>("application_name")?.unwrap_or_default();
    let user = user.unwrap_or_default();
    Ok(Some(format!("the session with pid {pid} of user {user}, application_name \"{application}\"")))
}
