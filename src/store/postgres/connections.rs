//! The connections of worker and relay, given up together when the database does not answer on them.
//!
//! A host that vanishes, or a proxy that forgets a connection, leaves it silent for as long as TCP is patient, which is many
//! minutes, and the client offers no way to close a connection that it waits on. So a statement has a deadline; after it
//! the whole pool is made anew, and what still waits on the old one is left to itself.

use std::future::Future;
use std::io::ErrorKind;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::Error;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tracing::warn;

pub(super) struct Connections {
    options: PgPoolOptions,
    connect: PgConnectOptions,
    /// How long a statement may take.
    deadline: Duration,
    /// The pool, and since when it is that.
    current: RwLock<(PgPool, Instant)>,
}

impl Connections {
    /// Connects lazily.
    pub(super) fn new(options: PgPoolOptions, connect: PgConnectOptions, deadline: Duration) -> Connections {
        let current = RwLock::new((options.clone().connect_lazy_with(connect.clone()), Instant::now()));
        Connections { options, connect, deadline, current }
    }

    /// The pool of now.
    pub(super) fn pool(&self) -> PgPool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What this work on the pool comes to, if it does before the deadline.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(Err(Error::PoolTimedOut)) => {
                // Nobody gives a connection back, perhaps since nobody hears from one.
                self.renew();
                Err(Error::PoolTimedOut)
            }
            Ok(done) => done,
            Err(_) => {
                self.renew();
                Err(Error::Io(std::io::Error::new(
                    ErrorKind::TimedOut,
                    format!("no answer within {:?}", self.deadline),
                )))
            }
        }
    }

    /// Begins with new connections, unless that was done within the deadline before.
    fn renew(&self) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() >= self.deadline {
            warn!("the database's connections are silent: they are given up, and new ones made");
            *current = (self.options.clone().connect_lazy_with(self.connect.clone()), Instant::now());
        }
    }
}
