//! What both stores do for relay and query, and at the start; what they keep of a partition's work is held by `laws`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Tests of a module, each on both stores.
macro_rules! on_both {
    ($($law:ident),+) => {
        mod sqlite {
            $(#[tokio::test] async fn $law() { super::$law(crate::Scene::sqlite().await).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $law() { super::$law(crate::Scene::postgres().await).await; })+
        }
    };
}

mod pages;
mod partitions;
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use headroom::domain::Partitioner;
use headroom::store::{AlertRow, Commit, Offsets, Options, Settled, Store, connect};
use uuid::Uuid;

/// A store of its own for a test.
struct Scene {
    url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Scene {
    async fn sqlite() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("headroom.db").display());
        Scene { url, _folder: Some(folder) }
    }

    async fn postgres() -> Scene {
        use sqlx::Connection as _;
        let server = std::env::var("HEADROOM_TEST_POSTGRES").expect(
            "HEADROOM_TEST_POSTGRES is not set: run `make test`, or `scripts/services up` and \
             `eval \"$(scripts/services env)\"`",
        );
        let name = format!("store-{}", Uuid::new_v4());
        let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        let statement = format!("create database \"{name}\"");
        sqlx::raw_sql(&statement).execute(&mut connection).await.unwrap();
        Scene { url: format!("{server}/{name}"), _folder: None }
    }

    fn open(&self) -> Arc<dyn Store> {
        self.open_with(3)
    }

    /// A store with so many connections for worker and relay.
    fn open_with(&self, connections: u32) -> Arc<dyn Store> {
        let options = Options {
            url: self.url.clone(),
            read_url: None,
            connections,
            read_connections: 2,
            timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
        };
        connect(&options).unwrap()
    }

    /// A store of two partitions.
    async fn ready(&self) -> Arc<dyn Store> {
        let store = self.open();
        store.migrate().await.unwrap();
        assert_eq!(store.settle(&settled(2)).await.unwrap(), settled(2));
        store
    }

    async fn execute(&self, statement: &str) {
        use sqlx::Connection as _;
        if self.url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
    }
}

fn settled(partitions: i32) -> Settled {
    Settled { partitions, partitioner: Partitioner::Murmur2, time_zone: "UTC".to_owned() }
}

/// The next commit of a partition, with alerts of these numbers.
fn commit(partition: i32, epoch: i64, from: i64, alerts: std::ops::Range<i64>) -> Commit {
    let alerts: Vec<AlertRow> =
        alerts.map(|number| AlertRow { number, customer: 7, body: format!("{{\"n\":{number}}}") }).collect();
    Commit {
        partition,
        epoch,
        commits: from,
        next: Offsets { usage: from + 1, assignments: 0 },
        outbox_number: alerts.last().map_or(0, |alert| alert.number),
        alerts,
        ..Commit::default()
    }
}

/// Customers of each of two partitions, in order.
fn customers_of(partition: i32) -> impl Iterator<Item = i64> {
    (1..).filter(move |customer| Partitioner::Murmur2.partition_of(*customer, 2) == partition)
}
