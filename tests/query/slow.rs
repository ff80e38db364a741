//! A database that does not answer in time: quick refusals, and never more statements than connections.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _};

use crate::portal::{SECRET, token};

/// Connections of the reader.
const CONNECTIONS: i64 = 2;
/// Requests at a time.
const REQUESTS: usize = 40;

struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connected(url: &str) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(url).await.unwrap()
}

#[test]
fn a_slow_database_is_told_and_not_piled_up_on() {
    let server = std::env::var("HEADROOM_TEST_POSTGRES").expect(
        "HEADROOM_TEST_POSTGRES is not set: run `make test`, or `scripts/services up` and \
         `eval \"$(scripts/services env)\"`",
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let name = format!("slow-{}", uuid::Uuid::new_v4().simple());
    let statement = format!("create database \"{name}\"");
    runtime
        .block_on(async { connected(&format!("{server}/postgres")).await.execute(statement.as_str()).await })
        .unwrap();
    let url = format!("{server}/{name}");
    let address = crate::portal::free_address();
    let headroom = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
        command.args(arguments).env_clear().env("HEADROOM_AUTH__HS256_SECRET", SECRET).env("HEADROOM_STORE__URL", &url);
        command.env("HEADROOM_HTTP__LISTEN", &address).env("HEADROOM_ADMIN__LISTEN", "127.0.0.1:0");
        command.env("HEADROOM_STORE__READ_CONNECTIONS", CONNECTIONS.to_string());
        command.env("HEADROOM_STORE__READ_TIMEOUT", "1s");
        command
    };
    let _reader = Reader(headroom(&["run", "--role", "reader"]).spawn().unwrap());
    let bearer = format!("Bearer {}", token(&[]));
    let ask = || {
        let config = ureq::config::Config::builder().http_status_as_error(false).build();
        let request = ureq::http::Request::get(format!("http://{address}/inclusive-usage-balances?page=1&pageSize=1"));
        ureq::Agent::new_with_config(config).run(request.header("Authorization", &bearer).body(()).unwrap())
    };
    let answers = || {
        let begun = Instant::now();
        while !ask().is_ok_and(|answer| answer.status() == 200) {
            assert!(begun.elapsed() < Duration::from_secs(90), "waited in vain for an answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    answers();

    let mut holder = runtime.block_on(connected(&url));
    runtime.block_on(holder.execute("begin; lock table deployment in access exclusive mode")).unwrap();
    let mut most = 0;
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| ask().unwrap())).collect();
        while !asking.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let waiting = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            );
            let waiting: i64 = runtime.block_on(waiting.fetch_one(&mut holder)).unwrap();
            most = most.max(waiting);
            std::thread::sleep(Duration::from_millis(20));
        }
        for mut answer in asking.into_iter().map(|asking| asking.join().unwrap()) {
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["retry-after"], "2");
            let body: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
            assert_eq!(body["error"], "Service Unavailable");
        }
    });
    assert!((1..=CONNECTIONS).contains(&most), "{most} statements waited at a time");
    runtime.block_on(holder.execute("commit")).unwrap();
    answers();
}
