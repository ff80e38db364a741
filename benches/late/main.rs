//! What late usage costs as a customer's month grows longer, through `Partition::apply` on a real PostgreSQL.
//!
//! One customer, an event each 2.5 seconds. After so many events, batches of new ones are timed, of which a share is late
//! by up to an hour; the bucket that they draw from has room, or ran out half an hour before. What counts is the ratio to
//! the shortest month: a late event's cost must follow from its lateness. Run it by `make bench-late`.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use headroom::domain::{Calendar, Instant, Partitioner};
use headroom::events::{Record, Rules};
use headroom::store::{Options, Settled, Store, connect};
use headroom::telemetry::Health;
use headroom::worker::{Applied, Batch, Context, Input, Partition};

/// How long the month is already, in events; MONTHS cuts the list, for a quick look.
const MONTHS: [i64; 3] = [10_000, 100_000, 1_000_000];
/// Late events in a hundred.
const LATE: [u64; 3] = [0, 2, 20];
/// Events between the bucket's end and the end of the month so far: half an hour.
const SINCE_EXHAUSTED: i64 = 720;
const BATCH: i64 = 250;
const BATCHES: i64 = 4;
/// 2026-11-01T00:00:00Z, and the time between events.
const MONTH: i64 = 1_793_491_200_000_000;
const STEP: i64 = 2_500_000;
const HOUR: u64 = 3_600_000_000;

const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_future: Duration::from_secs(86_400),
    retention: Duration::from_secs(400 * 86_400),
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let months: usize = std::env::var("MONTHS").map_or(Ok(MONTHS.len()), |months| months.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("| bucket | events before | late | us an event | ratio | replays | folded for each late event |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        let mut scene = Scene::new().await?;
        for (bucket, open) in [("open", true), ("exhausted", false)] {
            let mut shortest = [None; LATE.len()];
            for month in MONTHS.into_iter().take(months) {
                for (late, shortest) in LATE.into_iter().zip(&mut shortest) {
                    scene.next_customer(month, open).await?;
                    let (micros, applied) = scene.timed(late).await?;
                    let base = *shortest.get_or_insert(micros);
                    let late_events = f64::from(u32::try_from(BATCH * BATCHES)? * u32::try_from(late)?) / 100.0;
                    let folded = if late == 0 { 0.0 } else { f64::from(u32::try_from(applied.1)?) / late_events };
                    println!(
                        "| {bucket} | {month} | {late} % | {micros:.1} | {:.2} | {} | {folded:.0} |",
                        micros / base,
                        applied.0
                    );
                }
            }
        }
        Ok(())
    })
}

/// A partition pair of a store of its own, and one customer after the other.
struct Scene {
    partition: Partition,
    customer: i64,
    offsets: [i64; 2],
    /// How many events the customer has.
    events: i64,
    dice: u64,
}

impl Scene {
    async fn new() -> Result<Scene, Box<dyn std::error::Error>> {
        use sqlx::Connection as _;
        let server = std::env::var("HEADROOM_TEST_POSTGRES")
            .map_err(|_| "HEADROOM_TEST_POSTGRES is not set: make bench-late starts a server and sets it")?;
        let name = format!("bench_late_{}", std::process::id());
        let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres")).await?;
        sqlx::raw_sql(&format!("CREATE DATABASE {name}")).execute(&mut connection).await?;
        let store: Arc<dyn Store> = connect(&Options {
            url: format!("{server}/{name}"),
            read_url: None,
            connections: 3,
            read_connections: 1,
            timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
        })?;
        store.migrate().await?;
        let settled = Settled { partitions: 1, partitioner: Partitioner::Murmur2, time_zone: "UTC".to_owned() };
        store.settle(&settled).await?;
        let taken = store.take(0).await?;
        let context = Context {
            store_id: store.deployment().await?.store_id,
            store,
            calendar: Calendar::new("UTC")?,
            partitions: 1,
            thresholds: Vec::new(),
            alert_source: "headroom".to_owned(),
            topics: ["usage-events".to_owned(), "assignment-events".to_owned()],
            now: || Instant::from_micros(MONTH),
            cache_bytes: 64 << 20,
            accounts_bytes: usize::MAX,
            look_back: Duration::from_secs(2 * 86_400),
            replay_page: 5_000,
            replay_pause: Duration::from_secs(600),
            behind_bytes: 64 << 20,
            storing_customers: 1_000,
            let_in: 64,
            rules: RULES,
            health: Health::default(),
        };
        let partition = Partition::new(Arc::new(context), 0, taken);
        Ok(Scene { partition, customer: 0, offsets: [0, 0], events: 0, dice: 0x9E37_79B9_7F4A_7C15 })
    }

    /// A customer with a month of so many events, the bucket still open or exhausted for half an hour.
    async fn next_customer(&mut self, month: i64, open: bool) -> Result<(), Box<dyn std::error::Error>> {
        self.customer += 1;
        self.events = 0;
        let allowance = if open { 1_000_000_000 } else { month - SINCE_EXHAUSTED };
        let mut batch = Batch::new(0);
        let data = format!(
            "{{\"version\":1,\"assignmentId\":1,\"assignmentLevel\":\"CUSTOMER\",\"customerId\":{},\"startDate\":\
             \"2026-11-01\",\"plan\":{{\"inclusiveUsagePlanId\":1,\"components\":[{{\"componentId\":1,\"byValue\":false,\
             \"chargingType\":\"DURATION\",\"allowance\":{allowance}}}]}}}}",
            self.customer
        );
        self.push(&mut batch, Input::Assignments, "assignment.changed", &data, MONTH);
        self.apply(batch).await?;
        while self.events < month {
            let mut batch = Batch::new(0);
            for _ in 0..(month - self.events).min(10_000) {
                self.push_usage(&mut batch, 0);
            }
            self.apply(batch).await?;
        }
        Ok(())
    }

    /// Microseconds for each of the next events, so many in a hundred late, and replays with the events they folded.
    async fn timed(&mut self, late: u64) -> Result<(f64, (u64, u64)), Box<dyn std::error::Error>> {
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let mut batch = Batch::new(0);
            for _ in 0..BATCH {
                let by = if self.random(100) < late { self.random(HOUR) } else { 0 };
                self.push_usage(&mut batch, i64::try_from(by)?);
            }
            batches.push(batch);
        }
        let (began, mut replays, mut folded) = (Clock::now(), 0, 0);
        for batch in batches {
            let applied = self.apply(batch).await?;
            replays += applied.replays;
            folded += applied.replayed_events;
        }
        let events = f64::from(u32::try_from(BATCH * BATCHES)?);
        Ok((began.elapsed().as_secs_f64() * 1e6 / events, (replays, folded)))
    }

    async fn apply(&mut self, mut batch: Batch) -> Result<Applied, Box<dyn std::error::Error>> {
        Ok(self.partition.apply(&mut batch).await?)
    }

    fn push_usage(&mut self, batch: &mut Batch, late: i64) {
        let at = MONTH + self.events * STEP;
        let data = format!(
            "{{\"customerId\":{},\"siteId\":1,\"usageProductInventoryId\":1,\"usageProductId\":1,\"startTime\":\"{}\",\
             \"chargingType\":\"DURATION\",\"quantity\":1}}",
            self.customer,
            Instant::from_micros((at - late).max(MONTH))
        );
        self.events += 1;
        self.push(batch, Input::Usage, "usage.recorded", &data, at);
    }

    fn push(&mut self, batch: &mut Batch, input: Input, kind: &str, data: &str, at: i64) {
        let offset = self.offsets[input as usize];
        self.offsets[input as usize] += 1;
        let value = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{offset}\",\"source\":\"/bench\",\"type\":\"{kind}\",\"data\":{data}}}"
        );
        let key = self.customer.to_string();
        let record = Record {
            partition: 0,
            timestamp: Some(at / 1_000),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: std::iter::empty(),
        };
        batch.push(input, offset, &record, &RULES);
    }

    /// A number below a limit (xorshift): the same ones in each run.
    fn random(&mut self, limit: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % limit
    }
}
