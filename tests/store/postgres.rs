//! What only PostgreSQL can do to us: connections that are spoiled or held, and plans made too early.

use std::time::Duration;

use headroom::domain::{EventKey, Instant, Position, UsageState};
use headroom::store::{Commit, LedgerKey, NewUsage, StoreError};

use crate::{Scene, commit, customers_of};

/// A commit that nobody waits for any more, since its partition was taken away, leaves nothing on its connection that the
/// next one takes for his own answer.
#[tokio::test]
async fn a_commit_that_is_cut_off_spoils_no_connection() {
    use sqlx::Connection as _;
    let scene = Scene::postgres().await;
    scene.ready().await;
    let store = scene.open_with(1);
    let epoch = store.take(0).await.unwrap().epoch;
    let customer = customers_of(0).next().unwrap();
    let with_usage = |commits: i64, start: i64| {
        let position = Position { start: Instant::from_micros(start), key: EventKey(9) };
        let key = LedgerKey { customer, position };
        let usage = NewUsage { key, state: UsageState::Counted, source: 0, body: 0..4, draws: 4..4 };
        Commit { usage: vec![usage], bytes: b"body".to_vec(), ..commit(0, epoch, commits, 1..1) }
    };
    store.commit(&with_usage(0, 1_000_000)).await.unwrap();
    // While another session is about to write the same event, COPY waits for it at its end.
    let mut other = sqlx::PgConnection::connect(&scene.url).await.unwrap();
    let same = "BEGIN; INSERT INTO ledger (customer_id, start_time, event_key, partition, source, state, body, draws) \
                SELECT customer_id, start_time + interval '1 second', event_key, partition, source, state, body, draws \
                FROM ledger";
    sqlx::raw_sql(same).execute(&mut other).await.unwrap();
    let cut_off = with_usage(1, 2_000_000);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(&cut_off).await }
    });
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(stuck).fetch_one(&mut other).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    for _ in 0..5 {
        let rows = store.usage_after(0, customer, None, 10).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.position.start.micros()).collect::<Vec<i64>>(), [1_000_000]);
        assert_eq!(store.progress().await.unwrap().len(), 2);
    }
    store.commit(&with_usage(1, 2_000_000)).await.unwrap();
    assert_eq!(store.usage_after(0, customer, None, 10).await.unwrap().len(), 2);
}

/// A worker that stopped in the middle of a COPY is busy to PostgreSQL, so that nothing ends its transaction but its
/// partition's next owner. Whoever else holds the row is named.
#[tokio::test]
async fn a_stopped_owner_in_a_copy_holds_nobody_up() {
    use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions};
    use std::str::FromStr as _;
    let scene = Scene::postgres().await;
    let store = scene.ready().await;
    let epoch = store.take(1).await.unwrap().epoch;
    let hold = async |application: &str| {
        let options = PgConnectOptions::from_str(&scene.url).unwrap().application_name(application);
        let options = options.options([("idle_in_transaction_session_timeout", "5s")]);
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let fence = "BEGIN; UPDATE progress SET usage_offset = 7 WHERE partition = 1";
        sqlx::raw_sql(fence).execute(&pool).await.unwrap();
        pool
    };
    let worker = hold("headroom").await;
    let mut copy = worker.copy_in_raw("COPY source FROM STDIN").await.unwrap();
    copy.send(&b"1\t1\tab"[..]).await.unwrap();
    let taken = store.take(1).await.unwrap();
    assert_eq!((taken.epoch, taken.offsets.usage), (epoch + 1, 0), "nothing of it was written");
    assert!(copy.finish().await.is_err(), "its session is over");

    let person = hold("psql").await;
    let mut copy = person.copy_in_raw("COPY source FROM STDIN").await.unwrap();
    copy.send(&b"1\t1\tab"[..]).await.unwrap();
    let Err(StoreError::Unavailable(why)) = store.take(1).await else { panic!("taken from a person") };
    assert!(why.contains("application_name \"psql\" holds its row in progress"), "{why}");
    copy.abort("enough").await.unwrap();
}

/// Tables that nobody analyzed since they were small are, so that plans fit their sizes; those that did not grow are left.
#[tokio::test]
async fn statistics_follow_tables_that_grow() {
    use sqlx::Row as _;
    let scene = Scene::postgres().await;
    let store = scene.ready().await;
    let database = sqlx::PgPool::connect(&scene.url).await.unwrap();
    let known = async || {
        let sql = "SELECT reltuples FROM pg_class WHERE relname IN ('customer', 'line') ORDER BY relname";
        let rows = sqlx::query(sql).fetch_all(&database).await.unwrap();
        rows.iter().map(|row| row.get::<f32, _>(0)).collect::<Vec<_>>()
    };
    let grow = async |from: i64, until: i64| {
        let sql =
            "INSERT INTO customer (customer_id, partition, next_slot) SELECT c, 0, 0 FROM generate_series($1, $2) c";
        sqlx::query(sql).bind(from).bind(until).execute(&database).await.unwrap();
    };
    let mut there = 0;
    for (customers, analyzed) in [(1, -1.0), (10_000, 10_000.0), (20_000, 10_000.0), (100_000, 100_000.0)] {
        grow(there + 1, customers).await;
        there = customers;
        store.keep_statistics().await.unwrap();
        assert_eq!(known().await, [analyzed, -1.0], "at {customers} customers");
    }
}
