//! A partition's row of progress, locked by somebody else, so that its commit waits.

use sqlx::Connection as _;

use crate::deployment::Deployment;

pub(crate) struct Lock {
    runtime: tokio::runtime::Runtime,
    connection: sqlx::PgConnection,
}

impl Lock {
    pub(crate) fn take(deployment: &Deployment, partition: i32) -> Lock {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let connection = runtime.block_on(async {
            let mut connection =
                sqlx::PgConnection::connect(&deployment.environment["HEADROOM_STORE__URL"]).await.unwrap();
            sqlx::raw_sql("begin").execute(&mut connection).await.unwrap();
            let lock = "select 1 from progress where partition = $1 for update";
            sqlx::query(lock).bind(partition).execute(&mut connection).await.unwrap();
            connection
        });
        Lock { runtime, connection }
    }

    /// Whether a commit waits for it.
    pub(crate) fn is_waited_for(&mut self) -> bool {
        let asked = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        self.runtime.block_on(sqlx::query(asked).fetch_optional(&mut self.connection)).unwrap().is_some()
    }

    pub(crate) fn let_go(mut self) {
        self.runtime.block_on(sqlx::raw_sql("rollback").execute(&mut self.connection)).unwrap();
    }
}
