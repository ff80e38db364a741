//! What the query takes, kind by kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::LINES;
use crate::deployment::{Deployment, Running, on_postgres, until};

/// Requests of a kind, unless they are slow.
const REQUESTS: usize = 300;
/// How long one kind may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each number of connections is tried.
const TRIAL: Duration = Duration::from_secs(10);

/// A kind of request.
struct Kind {
    name: &'static str,
    /// The query of the nth request.
    query: Box<dyn Fn(i64) -> String>,
    /// What its token opens.
    claims: Vec<String>,
    counted: bool,
}

fn kind(name: &'static str, query: impl Fn(i64) -> String + 'static) -> Kind {
    Kind { name, query: Box::new(query), claims: Vec::new(), counted: false }
}

/// A customer that follows from a number.
fn some(number: i64, customers: i64) -> i64 {
    number.wrapping_mul(2_654_435_761).rem_euclid(customers) + 1
}

fn kinds(upis: i64) -> Vec<Kind> {
    let customers = upis / LINES;
    let last = (upis / 1_000).max(1);
    let few = "page=1&pageSize=100";
    let mut kinds = vec![
        kind("one customer", move |n| format!("{few}&customerId={}", some(n, customers))),
        kind("one site", move |n| format!("{few}&siteId={}", some(n, customers) * 10)),
        kind("one UPI", move |n| format!("{few}&usageProductInventoryId={}", some(n, customers) * 10)),
        kind("one assignment", move |n| format!("{few}&assignmentId={}", some(n, customers) * 10 + 1)),
        kind("a plan of few", move |n| format!("{few}&inclusiveUsagePlanId={}", 200 + n % 10_000)),
        kind("a plan of many", move |n| format!("{few}&inclusiveUsagePlanId={}", 2 + n % 100)),
        kind("a plan of all", move |_| format!("{few}&inclusiveUsagePlanId=1")),
        kind("a component of few", move |n| format!("{few}&componentId={}", 1_200 + n % 10_000)),
        kind("a component of all", move |_| format!("{few}&componentId=2")),
        kind("first page of 100", move |_| few.to_owned()),
        kind("first page of 1,000", move |_| "page=1&pageSize=1000".to_owned()),
        kind("last page of 1,000", move |_| format!("page={last}&pageSize=1000")),
        kind("last page, no balances", move |_| format!("page={last}&pageSize=1000&fields=usageProductInventoryId")),
        kind("by UPI, turned", move |_| format!("{few}&sort=usageProductInventoryId:desc")),
        kind("by period, then UPI", move |_| format!("{few}&sort=periodStartDate,usageProductInventoryId")),
        kind("both runs by UPI", move |_| format!("{few}&billRunId=in:1,2&sort=usageProductInventoryId")),
        kind("closed: one customer", move |n| format!("{few}&billRunId=1&customerId={}", some(n, customers))),
        kind("closed: one site", move |n| format!("{few}&billRunId=1&siteId={}", some(n, customers) * 10)),
        kind("closed: one UPI", move |n| {
            format!("{few}&billRunId=1&usageProductInventoryId={}", some(n, customers) * 10)
        }),
        kind("closed: first page", move |_| format!("{few}&billRunId=1")),
        kind("closed: last of 1,000", move |_| format!("page={last}&pageSize=1000&billRunId=1")),
        kind("closed: a plan of few", move |n| format!("{few}&billRunId=1&inclusiveUsagePlanId={}", 200 + n % 10_000)),
        kind("closed: a comp. of few", move |n| format!("{few}&billRunId=1&componentId={}", 1_200 + n % 10_000)),
        kind("closed: a plan of many", move |n| format!("{few}&billRunId=1&inclusiveUsagePlanId={}", 2 + n % 100)),
        kind("closed: a plan of all", move |_| format!("{few}&billRunId=1&inclusiveUsagePlanId=1")),
        kind("no such customer", move |_| format!("{few}&customerId=999999999999")),
        kind("no such plan", move |_| format!("{few}&inclusiveUsagePlanId=999999999999")),
        kind("closed: no such plan", move |_| format!("{few}&billRunId=1&inclusiveUsagePlanId=999999999999")),
        kind("last page of a plan", move |_| format!("page={}&pageSize=100&inclusiveUsagePlanId=50", last / 10)),
    ];
    let token = |name, claim: &str, value: i64| Kind {
        claims: vec![claim.to_owned(), value.to_string()],
        ..kind(name, move |_| few.to_owned())
    };
    kinds.push(token("a customer's token", "--customer-ids", some(7, customers)));
    kinds.push(token("an owner's token", "--contract-owner-ids", 7));
    kinds.push(Kind {
        claims: vec!["--contract-owner-ids".to_owned(), "7".to_owned()],
        ..kind("closed: an owner's token", move |_| format!("{few}&billRunId=1"))
    });
    for (name, filter) in [
        ("first page, counted", ""),
        ("a plan, counted", "&inclusiveUsagePlanId=50"),
        ("a plan of all, counted", "&inclusiveUsagePlanId=1"),
        ("closed: counted", "&billRunId=1"),
        ("closed: a plan, counted", "&billRunId=1&inclusiveUsagePlanId=50"),
    ] {
        kinds.push(Kind { counted: true, ..kind(name, move |_| format!("{few}{filter}")) });
    }
    kinds
}

/// One client, and what it asks.
struct Client {
    agent: ureq::Agent,
    base: String,
    bearer: String,
}

impl Client {
    fn new(deployment: &Deployment, claims: &[String]) -> Client {
        let mut arguments = vec!["token"];
        arguments.extend(claims.iter().map(String::as_str));
        let bearer = format!("Bearer {}", deployment.say(&arguments));
        let config = ureq::config::Config::builder().http_status_as_error(false).build();
        let base = format!("http://{}/inclusive-usage-balances", deployment.query);
        Client { agent: ureq::Agent::new_with_config(config), base, bearer }
    }

    /// Status and length of an answer.
    fn get(&self, query: &str, counted: bool) -> Result<(u16, usize), ureq::Error> {
        let mut request = self.agent.get(format!("{}?{query}", self.base)).header("Authorization", &self.bearer);
        if counted {
            request = request.header("Prefer", "count=exact");
        }
        let mut answer = request.call()?;
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec()?;
        Ok((answer.status().as_u16(), body.len()))
    }
}

fn started(deployment: &Deployment, connections: &str) -> Running {
    let running = deployment.run("reader", &[("HEADROOM_STORE__READ_CONNECTIONS", connections)]);
    let client = Client::new(deployment, &[]);
    until(|| client.get("page=1&pageSize=1", false).is_ok_and(|(status, _)| status == 200));
    running
}

/// What `/proc` says of a process's memory, in MiB: now, and at most.
fn memory(running: &Running) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Rows that the database read so far, by its own statistics: index entries, and rows of tables read whole.
fn rows_read(url: &str) -> i64 {
    let statement = "select ((select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes) \
                     + (select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables))::bigint";
    on_postgres(url, statement).unwrap_or(0)
}

/// Rows read for one request of each kind. A reader with one connection, which tells its statistics a second later.
fn count_rows(deployment: &Deployment, kinds: &[Kind]) -> Vec<i64> {
    let _reader = started(deployment, "1");
    let all = Client::new(deployment, &[]);
    let told = || {
        std::thread::sleep(Duration::from_millis(1_200));
        all.get("page=1&pageSize=1&customerId=1", false).unwrap();
        rows_read(&deployment.url)
    };
    let (first, second) = (told(), told());
    let own = second - first;
    let mut before = second;
    let mut counts = Vec::new();
    for kind in kinds {
        Client::new(deployment, &kind.claims).get(&(kind.query)(5), kind.counted).unwrap();
        let now = told();
        counts.push(now - before - own);
        before = now;
    }
    counts
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1_000.0
}

fn measure(deployment: &Deployment, kind: &Kind, rows: i64) {
    let client = Client::new(deployment, &kind.claims);
    let begun = Instant::now();
    let (mut times, mut bytes, mut failed) = (Vec::new(), 0, 0);
    for n in 0..i64::try_from(REQUESTS).unwrap() {
        let asked = Instant::now();
        let (status, length) = client.get(&(kind.query)(n), kind.counted).unwrap();
        // The first ones warm up caches and plans.
        if n >= 3 {
            times.push(asked.elapsed());
        }
        failed += usize::from(status != 200);
        bytes = length;
        if begun.elapsed() > PATIENCE && times.len() > 3 {
            break;
        }
    }
    times.sort_unstable();
    let failed = if failed > 0 { format!("  {failed} NOT ANSWERED") } else { String::new() };
    println!(
        "{:24} {:9.1} {:9.1} {rows:10} {bytes:9} {:5}{failed}",
        kind.name,
        percentile(&times, 50),
        percentile(&times, 99),
        times.len()
    );
}

fn throughput(deployment: &Deployment, upis: i64, connections: usize) {
    let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let token = Client::new(deployment, &[]).bearer;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..connections {
            let (done, refused, token) = (&done, &refused, token.clone());
            scope.spawn(move || {
                let config = ureq::config::Config::builder().http_status_as_error(false).build();
                let base = format!("http://{}/inclusive-usage-balances", deployment.query);
                let client = Client { agent: ureq::Agent::new_with_config(config), base, bearer: token };
                let mut n = i64::try_from(thread).unwrap() * 1_000_003;
                while begun.elapsed() < TRIAL {
                    let query = format!("page=1&pageSize=100&customerId={}", some(n, upis / LINES));
                    match client.get(&query, false) {
                        Ok((200, _)) => done.fetch_add(1, Ordering::Relaxed),
                        _ => refused.fetch_add(1, Ordering::Relaxed),
                    };
                    n += 1;
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (done, refused) = (done.into_inner(), refused.into_inner());
    println!(
        "{connections:3} connections, one customer: {:7.0} answers a second, {refused} refused",
        done as f64 / seconds
    );
}

fn walk(deployment: &Deployment, upis: i64) {
    let client = Client::new(deployment, &[]);
    let begun = Instant::now();
    let mut bytes = 0;
    for page in 1..=(upis / 1_000).max(1) {
        let (status, length) = client.get(&format!("page={page}&pageSize=1000"), false).unwrap();
        assert_eq!(status, 200, "page {page}");
        bytes += length;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("walk over {} pages of 1,000: {seconds:.0} s, {} MB", (upis / 1_000).max(1), bytes / 1_000_000);
}

/// Asks everything, and prints what it took.
pub(crate) fn ask(deployment: &Deployment, upis: i64) {
    let kinds = kinds(upis);
    let counts = count_rows(deployment, &kinds);
    let reader = started(deployment, "4");
    println!("{:24} {:>9} {:>9} {:>10} {:>9} {:>5}", "", "p50 ms", "p99 ms", "rows read", "bytes", "of");
    for (kind, rows) in kinds.iter().zip(counts) {
        measure(deployment, kind, rows);
    }
    for connections in [1, 8, 64] {
        throughput(deployment, upis, connections);
    }
    let (before, _) = memory(&reader);
    walk(deployment, upis);
    let (now, most) = memory(&reader);
    println!("memory of the reader: {before} MiB, {now} MiB after the walk, at most {most} MiB");
}
