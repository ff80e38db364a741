//! The metrics: their names, what they mean, and the one recorder (`domain.md section 9`).
//!
//! Whoever counts uses the names of this module with the macros of the `metrics` crate. Counters count since the process
//! began, and what was committed only. [`register`] makes every series that can be known before the first record; the
//! series of a partition begin when the partition is taken.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::config::{Role, Roles, Topics};
use crate::domain::{Outcome, Reason, Turn};

/// Counter: records consumed, by `topic` and `outcome` ([`Outcome::name`]).
pub const RECORDS: &str = "headroom_records_total";
/// Counter: records refused, by `topic` and `reason` ([`Reason::name`]).
pub const DEAD_LETTERS: &str = "headroom_dead_letters_total";
/// Counter: alerts published, by `type` ([`Turn::name`]).
pub const ALERTS_PUBLISHED: &str = "headroom_alerts_published_total";
/// Counter: customers whose usage was folded again.
pub const REPLAYS: &str = "headroom_replays_total";
/// Counter: usage events folded by replays.
pub const REPLAYED_EVENTS: &str = "headroom_replayed_events_total";
/// Customers audited.
pub const AUDIT_CUSTOMERS: &str = "headroom_audit_customers_total";
/// Buckets and events found otherwise than a plain fold gives them.
pub const AUDIT_DRIFT: &str = "headroom_audit_drift_total";
/// Gauge: records yet to apply, by `topic` and `partition`.
pub const LAG: &str = "headroom_lag_records";
/// Gauge: 1 for a `topic` and `partition` that is not read, as its position is not there or its records are damaged, else 0.
pub const STOPPED: &str = "headroom_partition_stopped";
/// Gauge: alerts not yet published; of the active relay only.
pub const OUTBOX: &str = "headroom_outbox_alerts";
/// Gauge: usage events held and not reversed, of the partitions owned here.
pub const HELD: &str = "headroom_held_events";
/// Customers whose records wait while their usage is folded again.
pub const BEHIND: &str = "headroom_behind_customers";
/// Gauge: 1 while a `part` ([`STORE`], [`REPLICA`] or [`BROKER`]) answers, 0 while it does not.
pub const PART_UP: &str = "headroom_part_up";
/// Histogram: seconds that a commit took.
pub const COMMIT_DURATION: &str = "headroom_commit_duration_seconds";
/// Histogram: records of a commit.
pub const COMMIT_RECORDS: &str = "headroom_commit_records";
/// Histogram: seconds from a record's timestamp to its commit.
pub const FRESHNESS: &str = "headroom_freshness_seconds";
/// Histogram: seconds that an answer took, by `route`, `method` and `status`.
pub const HTTP_DURATION: &str = "headroom_http_request_duration_seconds";

/// The store, as a `part`.
pub const STORE: &str = "store";
/// Where the reader reads, as a `part` of a process that writes elsewhere.
pub const REPLICA: &str = "replica";
/// The broker, as a `part`.
pub const BROKER: &str = "broker";
/// The partitions of the worker, as a `part` of the health.
pub const PARTITIONS: &str = "partitions";

/// 1 ms to 10 s.
const COMMIT_DURATION_BOUNDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// 1 to 20,000 records.
const COMMIT_RECORDS_BOUNDS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0];
/// 1 ms to a day: old records are fresh enough when they are caught up with.
const FRESHNESS_BOUNDS: [f64; 17] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0];
/// 1 ms to 10 s.
const HTTP_DURATION_BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How often what histograms were told is put into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// A recorder that knows the bounds of every histogram.
fn recorder() -> PrometheusRecorder {
    let bounds: [(&str, &[f64]); 4] = [
        (COMMIT_DURATION, &COMMIT_DURATION_BOUNDS),
        (COMMIT_RECORDS, &COMMIT_RECORDS_BOUNDS),
        (FRESHNESS, &FRESHNESS_BOUNDS),
        (HTTP_DURATION, &HTTP_DURATION_BOUNDS),
    ];
    let with_bounds = |builder: PrometheusBuilder, (name, bounds): (&str, &[f64])| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds).expect("there are bounds")
    };
    bounds.into_iter().fold(PrometheusBuilder::new(), with_bounds).build_recorder()
}

/// Makes this process's recorder the one that all macros write to; what it returns renders `/metrics`. Fails when there
/// is a recorder already.
pub fn install() -> Result<PrometheusHandle, metrics::SetRecorderError<PrometheusRecorder>> {
    let recorder = recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}

/// Keeps what histograms were told bounded while nobody scrapes. Never ends.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

/// Says what every metric means, and begins every series of these roles that can be known now, at zero.
pub fn register(roles: Roles, topics: &Topics) {
    describe();
    gauge!(PART_UP, "part" => STORE).set(0.0);
    if roles.has(Role::Worker) || roles.has(Role::Relay) {
        gauge!(PART_UP, "part" => BROKER).set(0.0);
    }
    if roles.has(Role::Worker) {
        for topic in [&*topics.usage, &*topics.assignments] {
            for outcome in Outcome::ALL {
                counter!(RECORDS, "topic" => topic.to_owned(), "outcome" => outcome.name()).increment(0);
            }
            for reason in Reason::ALL {
                counter!(DEAD_LETTERS, "topic" => topic.to_owned(), "reason" => reason.name()).increment(0);
            }
        }
        counter!(REPLAYS).increment(0);
        counter!(REPLAYED_EVENTS).increment(0);
        counter!(AUDIT_CUSTOMERS).increment(0);
        counter!(AUDIT_DRIFT).increment(0);
        gauge!(HELD).set(0.0);
        gauge!(BEHIND).set(0.0);
        // Naming a histogram begins its series: the exporter renders it with empty buckets.
        let _ = (histogram!(COMMIT_DURATION), histogram!(COMMIT_RECORDS), histogram!(FRESHNESS));
    }
    if roles.has(Role::Relay) {
        for turn in [Turn::Crossed, Turn::Recovered] {
            counter!(ALERTS_PUBLISHED, "type" => turn.name()).increment(0);
        }
        gauge!(OUTBOX).set(0.0);
    }
    if roles.has(Role::Reader) {
        let _ = histogram!(HTTP_DURATION, "route" => QUERY, "method" => "GET", "status" => "200");
    }
}

/// The route that is there from the start.
const QUERY: &str = "/inclusive-usage-balances";

fn describe() {
    describe_counter!(RECORDS, Unit::Count, "Records consumed and committed, by topic and outcome.");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Records refused and kept as dead letters, by topic and reason.");
    describe_counter!(ALERTS_PUBLISHED, Unit::Count, "Alerts published, by type.");
    describe_counter!(REPLAYS, Unit::Count, "Customers whose usage was folded again.");
    describe_counter!(REPLAYED_EVENTS, Unit::Count, "Usage events folded by replays.");
    describe_counter!(AUDIT_CUSTOMERS, Unit::Count, "Customers whose balances were held against their usage.");
    describe_counter!(
        AUDIT_DRIFT,
        Unit::Count,
        "Buckets and usage events stored otherwise than a plain fold gives them."
    );
    describe_gauge!(LAG, Unit::Count, "Records yet to apply, by topic and partition.");
    describe_gauge!(
        STOPPED,
        Unit::Count,
        "1 while a partition is not read: its topic does not have its position, or its records are damaged; else 0."
    );
    describe_gauge!(OUTBOX, Unit::Count, "Alerts not yet published, from the active relay only.");
    describe_gauge!(
        BEHIND,
        Unit::Count,
        "Customers whose records wait while their usage is folded again, of the partitions owned here."
    );
    describe_gauge!(HELD, Unit::Count, "Usage events held and not reversed, of the partitions owned here.");
    describe_gauge!(PART_UP, Unit::Count, "1 while the store, its replica or the broker answers, 0 while it does not.");
    describe_histogram!(COMMIT_DURATION, Unit::Seconds, "Time that a commit took.");
    describe_histogram!(COMMIT_RECORDS, Unit::Count, "Records of a commit.");
    describe_histogram!(FRESHNESS, Unit::Seconds, "Time from a record's timestamp to its commit.");
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "Time that an answer took, by route, method and status.");
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn rendered(roles: Roles) -> String {
        let recorder = recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || register(roles, &Topics::default()));
        handle.render()
    }

    #[test]
    fn all_are_there_from_the_start() {
        let text = rendered(Roles::ALL);
        let mut expected = Vec::new();
        for topic in ["usage-events", "assignment-events"] {
            for outcome in ["counted", "held", "duplicate", "applied", "passed_over", "dead_letter"] {
                expected.push(format!("headroom_records_total{{topic=\"{topic}\",outcome=\"{outcome}\"}} 0"));
            }
            for reason in Reason::ALL.map(Reason::name) {
                expected.push(format!("headroom_dead_letters_total{{topic=\"{topic}\",reason=\"{reason}\"}} 0"));
            }
        }
        for line in [
            "headroom_alerts_published_total{type=\"crossed\"} 0",
            "headroom_alerts_published_total{type=\"recovered\"} 0",
            "headroom_replays_total 0",
            "headroom_replayed_events_total 0",
            "headroom_audit_customers_total 0",
            "headroom_audit_drift_total 0",
            "headroom_outbox_alerts 0",
            "headroom_held_events 0",
            "headroom_part_up{part=\"store\"} 0",
            "headroom_part_up{part=\"broker\"} 0",
            "headroom_commit_duration_seconds_bucket{le=\"0.001\"} 0",
            "headroom_commit_duration_seconds_bucket{le=\"10\"} 0",
            "headroom_commit_records_bucket{le=\"1\"} 0",
            "headroom_commit_records_bucket{le=\"20000\"} 0",
            "headroom_freshness_seconds_bucket{le=\"0.001\"} 0",
            "headroom_freshness_seconds_bucket{le=\"+Inf\"} 0",
            "headroom_freshness_seconds_count 0",
        ] {
            expected.push(line.to_owned());
        }
        for line in &expected {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        let http = "headroom_http_request_duration_seconds_count{route=\"/inclusive-usage-balances\",method=\"GET\",\
                    status=\"200\"} 0";
        assert!(text.lines().any(|there| there == http), "{text}");
    }

    #[test]
    fn a_role_shows_its_own() {
        let text = rendered(Roles::of(&[Role::Reader]));
        assert!(text.contains("headroom_part_up{part=\"store\"} 0") && text.contains(HTTP_DURATION));
        for absent in [RECORDS, OUTBOX, "part=\"broker\""] {
            assert!(!text.contains(absent), "{absent} is in\n{text}");
        }
    }

    /// `promtool check metrics` of Debian's package `prometheus`, on every series.
    #[test]
    fn promtool_accepts_them() {
        let recorder = recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            register(Roles::ALL, &Topics::default());
            gauge!(LAG, "topic" => "usage-events", "partition" => "0").set(7.0);
            gauge!(STOPPED, "topic" => "usage-events", "partition" => "0").set(0.0);
            histogram!(FRESHNESS).record(0.25);
        });
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool runs; it is in Debian's package prometheus");
        let mut stdin = promtool.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, handle.render().as_bytes()).expect("promtool reads");
        drop(stdin);
        let output = promtool.wait_with_output().expect("promtool ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
}
