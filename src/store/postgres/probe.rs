//! Whether a database answers, asked over a connection kept for that: all others may be busy, and a pool that gets none says
//! nothing of why.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::Mutex;

use super::store_error;
use crate::store::StoreError;

/// One side of a store.
pub(super) struct Probe {
    connect: PgConnectOptions,
    /// The key, host, port, database and user, for errors.
    place: String,
    /// How long an answer may take.
    timeout: Duration,
    /// `None` until it is asked, and after it did not answer.
    connection: Mutex<Option<PgConnection>>,
}

impl Probe {
    /// Connects when it is asked first.
    pub(super) fn new(connect: PgConnectOptions, place: String, timeout: Duration) -> Probe {
        Probe { connect, place, timeout, connection: Mutex::new(None) }
    }

    /// Asks, and waits for a connection and an answer together.
    pub(super) async fn ask(&self) -> Result<(), StoreError> {
        let mut kept = self.connection.lock().await;
        let before = kept.take();
        let asking = async {
            let mut connection = match before {
                Some(connection) => connection,
                None => PgConnection::connect_with(&self.connect).await?,
            };
            connection.execute("SELECT 1").await?;
            Ok(connection)
        };
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(Ok(connection)) => {
                *kept = Some(connection);
                Ok(())
            }
            Ok(Err(error)) => Err(store_error(&self.place, &error)),
            Err(_) => Err(StoreError::Unavailable(format!("{}: no answer within {:?}", self.place, self.timeout))),
        }
    }
}
