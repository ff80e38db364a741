//! Statistics that plans are made from. A statement's plan is made once for a connection, perhaps while its tables are
//! empty, and stays until they are analyzed: then it reads all of an index where it should look rows up. Autovacuum comes
//! once a minute, if it is on at all; a first load, or a database restored from a dump, does not wait for it.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Connection, Error};

/// Tables whose rows the worker and the query look up by their keys.
const BY_KEY: [&str; 3] = ["ledger", "reversal", "bucket"];

/// Analyzes the tables that are many times as large as when they were analyzed last, where that is allowed. On a connection
/// of its own, since it may take a while.
pub(super) async fn keep(pool: &PgPool, connect: &PgConnectOptions) -> Result<(), Error> {
    let outgrown: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = ANY(ARRAY['ledger', 'reversal', 'customer', \
         'assignment', 'plan_customer', 'component_plan', 'line', 'standing_row', 'bucket', 'stored_row']::regclass[]) \
         AND pg_has_role(c.relowner, 'USAGE') \
         AND pg_relation_size(c.oid) / current_setting('block_size')::int > 4 * greatest(c.relpages, 2)",
    )
    .fetch_all(pool)
    .await?;
    if outgrown.is_empty() {
        return Ok(());
    }
    let mut connection = PgConnection::connect_with(connect).await?;
    for table in outgrown {
        // There how many rows there are is enough to know, and the largest tables are among them: 3,000 rows tell that, in
        // place of 30,000.
        let sample = if BY_KEY.contains(&table.as_str()) { "10" } else { "DEFAULT" };
        sqlx::query(&format!("SET default_statistics_target = {sample}")).execute(&mut connection).await?;
        // Another worker may be at it.
        let statement = format!("ANALYZE (SKIP_LOCKED) {table}");
        sqlx::query(&statement).execute(&mut connection).await?;
    }
    connection.close().await
}
