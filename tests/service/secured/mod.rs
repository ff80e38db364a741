//! Kafka with SASL over TLS and PostgreSQL over TLS, for real: all of the program runs on them, and what is wrong with a
//! certificate or a password is one line that names the key and holds no secret.

mod servers;

use std::time::Duration;

use headroom::stream::alerts::AlertsReader;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::servers::{Server, USER};
use crate::certificates::Authority;
use crate::deployment::{Deployment, now, until};

const PASSWORD: &str = "s3cret-of-both";

/// Both servers, and what it takes to be let in.
struct Secured {
    kafka: Server,
    postgres: Server,
    authority: Authority,
    /// Another one, which signed nothing here.
    stranger: Authority,
    folder: TempDir,
}

impl Secured {
    fn start() -> Secured {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL runs as another user than root.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let stranger = Authority::new(folder.path(), "stranger");
        let programs = servers::programs();
        let postgres = servers::postgres(&programs, folder.path(), &authority.sign(), PASSWORD);
        let kafka = servers::kafka(&programs, folder.path(), &authority.sign(), PASSWORD);
        std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        Secured { kafka, postgres, authority, stranger, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn store(&self, user: &str, rest: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres?{rest}", self.postgres.port)
    }

    /// A deployment that is let in by this mechanism.
    fn deployment(&self, mechanism: &str) -> Deployment {
        let trust = format!("sslmode=verify-full&sslrootcert={}", self.authority.file.display());
        let mut deployment = Deployment::on(format!("127.0.0.1:{}", self.kafka.port), self.store(USER, &trust));
        let ca = self.authority.file.display().to_string();
        for (name, value) in [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", USER),
            ("ssl.ca.location", &ca),
        ] {
            deployment.environment.insert(variable(name), value.to_owned());
            deployment.properties.insert(name.to_owned(), value.to_owned());
        }
        deployment.properties.insert("sasl.password".to_owned(), PASSWORD.to_owned());
        deployment.environment.insert(variable("sasl.password") + "_FILE", self.path("password"));
        deployment.environment.insert("HEADROOM_STORE__PASSWORD_FILE".to_owned(), self.path("password"));
        deployment
    }
}

/// The variable of one of librdkafka's properties.
fn variable(property: &str) -> String {
    format!("HEADROOM_KAFKA__PROPERTIES__{}", property.to_ascii_uppercase().replace('.', "_"))
}

#[test]
fn everything_runs_over_tls_and_what_is_wrong_is_one_line() {
    let secured = Secured::start();
    runs(&secured);
    wrong(&secured);
}

/// Worker, relay and reader over TLS: the balance is read, the alert arrives.
fn runs(secured: &Secured) {
    let deployment = secured.deployment("SCRAM-SHA-512");
    deployment.say(&["topics", "create", "--partitions", "8", "--replication", "1"]);
    let _running = deployment.run();
    let month = jiff::Timestamp::from_millisecond(now()).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let (first, last) = (month.first_of_month().to_string(), month.last_of_month().to_string());
    let run = json!({"version": 1, "billRunId": 1, "billingCycleId": 0, "periodStartDate": first, "periodEndDate": last,
        "status": "OPEN"});
    deployment.send("bill-run.changed", "/billing", "run-1", 1, &run);
    let assignment = json!({
        "version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17, "startDate": first,
        "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 30000}]},
    });
    deployment.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    until("the facts are in", || deployment.outcomes("applied") >= 2.0);
    deployment.call("call-1", 25_000);
    let left = |row: &Value| row["inclusiveUsageBalanceAssignments"][0]["components"][0]["remaining"].clone();
    until("the balance is read", || deployment.rows("&customerId=17").iter().map(left).eq([json!(5_000)]));
    let mut reader = AlertsReader::new(&deployment.options(), &[]).unwrap();
    until("the alert is published", || {
        let alert = reader.next_payload(Duration::from_millis(200)).unwrap();
        alert.is_some_and(|alert| serde_json::from_slice::<Value>(&alert).unwrap()["data"]["remainingAfter"] == 5_000)
    });
    // The other ways in.
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let deployment = secured.deployment(mechanism);
        deployment.say(&["topics", "create", "--partitions", "1", "--replication", "1"]);
    }
}

/// One thing that is wrong, and its line: the variables that are other than good, and parts of what is told.
struct Wrong {
    changes: Vec<(String, Option<String>)>,
    code: i32,
    told: Vec<String>,
}

fn wrong(secured: &Secured) {
    let stranger = secured.stranger.file.display().to_string();
    let authority = secured.authority.file.display().to_string();
    let trusting = |user: &str, file: &str| secured.store(user, &format!("sslmode=verify-full&sslrootcert={file}"));
    let of = |changes: &[(String, Option<&str>)], code, told: &[&str]| Wrong {
        changes: changes.iter().map(|(key, value)| (key.clone(), value.map(str::to_owned))).collect(),
        code,
        told: told.iter().map(|part| (*part).to_owned()).collect(),
    };
    let kafka = |name: &str, value: &str, code, told: &[&str]| of(&[(variable(name), Some(value))], code, told);
    let store = |url: &str, code, told: &[&str]| of(&[("HEADROOM_STORE__URL".to_owned(), Some(url))], code, told);
    let broker = format!("no answer from 127.0.0.1:{}", secured.kafka.port);
    let not_trusted = [&*broker, "certificate verify failed", "look at kafka.properties: ssl.ca.location"];
    let not_let_in = [&*broker, "SASL authentication error", "look at kafka.properties: sasl.username, sasl.password"];
    let hung_up = [&*broker, "is kafka.properties: security.protocol the listener's?"];
    let database = format!("store.url: database \"postgres\" at 127.0.0.1:{}", secured.postgres.port);
    let unknown = [&*database, "UnknownIssuer", "look at its sslmode and sslrootcert"];
    let own_password = "HEADROOM_STORE__PASSWORD_FILE".to_owned();
    let cases = [
        kafka("ssl.ca.location", &stranger, 1, &not_trusted),
        of(&[(variable("ssl.ca.location"), None)], 1, &not_trusted),
        kafka(
            "ssl.ca.location",
            "/nowhere.pem",
            2,
            &["kafka.properties: ssl.ca.location = \"/nowhere.pem\": No such file"],
        ),
        of(
            &[(variable("sasl.password") + "_FILE", None), (variable("sasl.password"), Some("wr0ng-s3cret"))],
            1,
            &not_let_in,
        ),
        kafka("sasl.username", "nobody", 1, &not_let_in),
        kafka("sasl.mechanism", "GSSAPI", 2, &["kafka.properties: No provider for SASL mechanism GSSAPI"]),
        kafka("security.protocol", "PLAINTEXT", 1, &hung_up),
        kafka("security.protocol", "SSL", 1, &hung_up),
        store(&trusting(USER, &stranger), 1, &unknown),
        store(&secured.store(USER, "sslmode=verify-full"), 1, &unknown),
        store(&trusting(USER, "/nowhere.pem"), 2, &["store.url has sslrootcert=\"/nowhere.pem\": No such file"]),
        of(
            &[
                (own_password.clone(), None),
                ("HEADROOM_STORE__URL".to_owned(), Some(&trusting("headroom:wr0ng-s3cret", &authority))),
            ],
            1,
            &[&database, "password authentication failed for user \"headroom\""],
        ),
        store(&trusting("nobody", &authority), 1, &[&database, "failed for user \"nobody\""]),
        store(&secured.store(USER, "sslmode=disable"), 1, &[&database, "no encryption"]),
        store(&secured.store(USER, "sslmode=verify"), 2, &["store.url has sslmode=\"verify\"; it wants one of"]),
    ];
    // Side by side: some only wait.
    std::thread::scope(|scope| {
        for case in &cases {
            scope.spawn(|| refuses(secured, case));
        }
    });
}

fn refuses(secured: &Secured, wrong: &Wrong) {
    let mut deployment = secured.deployment("SCRAM-SHA-512");
    for (key, value) in &wrong.changes {
        match value {
            Some(value) => deployment.environment.insert(key.clone(), value.clone()),
            None => deployment.environment.remove(key),
        };
    }
    let output = deployment.command(&["run"]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("headroom: ")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(wrong.code), 1), "{:?}: {said}", wrong.changes);
    for part in &wrong.told {
        assert!(lines[0].contains(part), "{:?}: \"{part}\" is not in: {said}", wrong.changes);
    }
    assert!(!said.contains("s3cret"), "{:?}: {said}", wrong.changes);
}
