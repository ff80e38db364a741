//! A deployment of the program on real Kafka and PostgreSQL, with topics and a database of its own.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headroom::domain::Partitioner;
use headroom::stream::feeder::{Feed, Feeder};
use headroom::stream::{FetchAhead, Options};
use serde_json::{Value, json};
use uuid::Uuid;

const HINT: &str = "run `make test`, or `scripts/services up` and `eval \"$(scripts/services env)\"`";
pub(crate) const PARTITIONS: i32 = 8;

/// A deployment with topics and a database of its own.
pub(crate) struct Deployment {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) query: String,
    pub(crate) admin: String,
    /// librdkafka's properties for the test's own clients.
    pub(crate) properties: BTreeMap<String, String>,
    /// Made once: a producer takes its time to find the broker.
    feeder: OnceCell<Feeder>,
}

/// What docker-compose.yml gives the service headroom.
fn compose_environment() -> BTreeMap<String, String> {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml")).unwrap();
    let (_, after) = file.split_once("environment: &headroom\n").expect("the anchor");
    let lines = after.lines().take_while(|line| line.trim_start().starts_with("HEADROOM_"));
    let pairs = lines.map(|line| line.trim().split_once(": ").expect("a key and a value"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn free_address() -> String {
    format!("127.0.0.1:{}", crate::ports::free_port())
}

pub(crate) fn on_postgres(url: &str, statement: &str) -> Option<i64> {
    use sqlx::{Connection as _, Row as _};
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let row = sqlx::query(statement).fetch_optional(&mut connection).await.unwrap();
        row.map(|row| row.get(0))
    })
}

impl Deployment {
    pub(crate) fn new() -> Deployment {
        let kafka =
            std::env::var("HEADROOM_TEST_KAFKA").unwrap_or_else(|_| panic!("HEADROOM_TEST_KAFKA is not set: {HINT}"));
        let postgres = std::env::var("HEADROOM_TEST_POSTGRES")
            .unwrap_or_else(|_| panic!("HEADROOM_TEST_POSTGRES is not set: {HINT}"));
        let database = format!("service-{}", Uuid::new_v4().simple());
        on_postgres(&format!("{postgres}/postgres"), &format!("create database \"{database}\""));
        Deployment::on(kafka, format!("{postgres}/{database}"))
    }

    /// On this broker, with topics of its own, and this database.
    pub(crate) fn on(kafka: String, store: String) -> Deployment {
        let test = Uuid::new_v4().simple().to_string();
        let (query, admin) = (free_address(), free_address());
        let mut environment = compose_environment();
        // The compose file's own network, ports and secrets have other values here; its keys are what is tried.
        for (key, value) in [
            ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", kafka),
            ("HEADROOM_STORE__URL", store),
            ("HEADROOM_HTTP__LISTEN", query.clone()),
            ("HEADROOM_ADMIN__LISTEN", admin.clone()),
            ("HEADROOM_AUTH__HS256_SECRET", "a secret of thirty-two bytes or more".to_owned()),
        ] {
            assert!(environment.insert(key.to_owned(), value).is_some(), "docker-compose.yml sets no {key}");
        }
        for (key, topic) in [("USAGE", "usage"), ("ASSIGNMENTS", "assignments"), ("ALERTS", "alerts")] {
            environment.insert(format!("HEADROOM_TOPICS__{key}"), format!("{topic}-{test}"));
        }
        environment.insert("HEADROOM_KAFKA__GROUP".to_owned(), format!("group-{test}"));
        Deployment { environment, query, admin, properties: BTreeMap::new(), feeder: OnceCell::new() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
        command.args(arguments).env_clear().envs(&self.environment);
        command
    }

    pub(crate) fn say(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn run(&self) -> Running {
        Running(self.command(&["run"]).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// The same deployment for another process of it, with addresses of its own.
    pub(crate) fn beside(&self) -> Deployment {
        let (query, admin) = (free_address(), free_address());
        let mut environment = self.environment.clone();
        environment.insert("HEADROOM_HTTP__LISTEN".to_owned(), query.clone());
        environment.insert("HEADROOM_ADMIN__LISTEN".to_owned(), admin.clone());
        let properties = self.properties.clone();
        Deployment { environment, query, admin, properties, feeder: OnceCell::new() }
    }

    /// Some of the roles, with commas between.
    pub(crate) fn run_roles(&self, roles: &str) -> Running {
        Running(self.command(&["run", "--role", roles]).stderr(Stdio::inherit()).spawn().unwrap())
    }

    pub(crate) fn options(&self) -> Options {
        let of = |key: &str| self.environment[key].clone();
        Options {
            bootstrap_servers: of("HEADROOM_KAFKA__BOOTSTRAP_SERVERS"),
            group: of("HEADROOM_KAFKA__GROUP"),
            group_instance_id: None,
            properties: self.properties.clone(),
            usage_topic: of("HEADROOM_TOPICS__USAGE"),
            assignments_topic: of("HEADROOM_TOPICS__ASSIGNMENTS"),
            alerts_topic: of("HEADROOM_TOPICS__ALERTS"),
            fetch_ahead: FetchAhead::default(),
        }
    }

    /// Sends an event, and waits until it is there.
    pub(crate) fn send(&self, kind: &str, source: &str, id: &str, key: i64, data: &Value) {
        self.queue(kind, source, id, key, data);
        self.feeder.get().unwrap().flush().unwrap();
    }

    /// Sends an event soon.
    pub(crate) fn queue(&self, kind: &str, source: &str, id: &str, key: i64, data: &Value) {
        let options = self.options();
        let value = json!({"specversion": "1.0", "type": kind, "source": source, "id": id, "data": data}).to_string();
        let topic = if kind.starts_with("usage.") { &options.usage_topic } else { &options.assignments_topic };
        let key = key.to_string();
        let feeder = self.feeder.get_or_init(|| Feeder::with(&options.bootstrap_servers, &self.properties).unwrap());
        let partition = Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS);
        feeder.send(&Feed { topic, partition, key: &key, value: Some(&value), timestamp: now() }).unwrap();
    }

    pub(crate) fn call(&self, id: &str, seconds: i64) {
        let data = json!({
            "customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "chargingType": "DURATION",
            "quantity": seconds, "price": 0, "startTime": jiff::Timestamp::from_millisecond(now()).unwrap().to_string(),
        });
        // The start time is part of the event's identity, so the same id is another event a moment later.
        self.send("usage.recorded", "/switch", id, 17, &data);
    }

    /// Metrics by series.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let Some((_, text)) = self.ask("metrics") else { return BTreeMap::new() };
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// The code and the body that a health page answers.
    pub(crate) fn health(&self, page: &str) -> (u16, Value) {
        let answer = self.ask(&format!("health/{page}"));
        answer.map_or((0, Value::Null), |(code, body)| (code, serde_json::from_str(&body).unwrap()))
    }

    /// What is said of a part that is not well.
    pub(crate) fn told(&self, part: &str) -> String {
        self.health("ready").1["parts"][part]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// What a page of the admin server answers; `None` while it does not.
    fn ask(&self, page: &str) -> Option<(u16, String)> {
        let url = format!("http://{}/{page}", self.admin);
        let asked = ureq::get(&url).config().http_status_as_error(false).timeout_global(Some(Duration::from_secs(5)));
        let mut answer = asked.build().call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// The rows that a query answers to a token that opens all.
    pub(crate) fn rows(&self, query: &str) -> Vec<Value> {
        self.answer(query).unwrap()
    }

    /// The same, or `None` while it is refused.
    pub(crate) fn answer(&self, query: &str) -> Option<Vec<Value>> {
        let token = self.say(&["token"]);
        let url = format!("http://{}/inclusive-usage-balances?page=1&pageSize=1000{query}", self.query);
        let mut answer = ureq::get(&url).header("Authorization", format!("Bearer {token}")).call().ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// How many records ended so.
    pub(crate) fn outcomes(&self, outcome: &str) -> f64 {
        let named = format!("outcome=\"{outcome}\"");
        let metrics = self.metrics();
        let series =
            metrics.iter().filter(|(name, _)| name.starts_with("headroom_records_total") && name.contains(&named));
        series.map(|(_, count)| count).sum()
    }

    /// Records and bill runs yet to apply, over all partitions.
    pub(crate) fn lag(&self) -> f64 {
        self.metrics().iter().filter(|(name, _)| name.starts_with("headroom_lag_records")).map(|(_, lag)| lag).sum()
    }

    pub(crate) fn totals(&self) -> Value {
        serde_json::from_str(&self.say(&["totals"])).unwrap()
    }
}

/// A running program; it is killed when a test fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let told = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap();
        assert!(told.success());
    }
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until this is so, for a time that is far longer than it takes and shorter than a fault would let it last.
pub(crate) fn until_within(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until this is so; how long it may take is no law, only an end to waiting.
pub(crate) fn until(what: &str, so: impl FnMut() -> bool) {
    until_within(Duration::from_secs(90), what, so);
}
