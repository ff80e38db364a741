//! Where values come from and how they are read; the modules below hold what is refused, and what is shown.

mod reference;
mod refusals;
mod secrets;
mod together;

use std::ffi::OsString;
use std::io::Write as _;

use super::*;
use crate::domain::{Partitioner, Quantity, Threshold};

/// Sources as a test has them: the text of a file, variables and `--set` flags.
struct Given {
    sources: Sources,
    file: Option<tempfile::NamedTempFile>,
}

fn given(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Given {
    let file = (!file.is_empty()).then(|| {
        let mut written = tempfile::NamedTempFile::new().expect("a temporary file");
        written.write_all(file.as_bytes()).expect("written");
        written
    });
    let sources = Sources {
        file: file.as_ref().map(|file| file.path().to_owned()),
        environment: environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect(),
        flags: flags.iter().map(|(k, v)| ("--set", (*k).to_owned(), (*v).to_owned())).collect(),
    };
    Given { sources, file }
}

impl Given {
    fn load(&self) -> Config {
        Config::load(&self.sources, Needs::Nothing).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The line, with the file's path as `FILE`.
    fn refused(&self, needs: Needs) -> String {
        let line = match Config::load(&self.sources, needs) {
            Ok(config) => panic!("accepted: {config:?}"),
            Err(error) => error.to_string(),
        };
        assert!(!line.contains('\n'), "{line}");
        let path = self.file.as_ref().map(|file| file.path().display().to_string());
        path.map_or(line.clone(), |path| line.replace(&path, "FILE"))
    }
}

fn from_file(text: &str) -> Config {
    given(text, &[], &[]).load()
}

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let file =
        "[kafka]\ngroup = \"file\"\npartitioner = \"crc32\"\n[topics]\nusage = \"file\"\n[store]\nconnections = 7";
    let environment = [("HEADROOM_KAFKA__GROUP", "environment"), ("HEADROOM_TOPICS__USAGE", "environment")];
    let config = given(file, &environment, &[("topics.usage", "first"), ("topics.usage", "flag")]).load();
    assert_eq!((&*config.kafka.group, &*config.topics.usage), ("environment", "flag"));
    assert_eq!((config.kafka.partitioner, config.store.connections.get()), (Partitioner::Crc32, 7));
    assert_eq!(config.topics.assignments, Topics::default().assignments);
}

#[test]
fn text_of_the_environment_is_taken_as_it_is() {
    for text in ["123456", "007", "1e3", "true", "\"quoted\"", "[a, b]", "{a=1}", "a,b", " x ", "#1", "a=b", "nan", "'"]
    {
        let config = given("", &[("HEADROOM_AUTH__HS256_SECRET", text), ("HEADROOM_KAFKA__GROUP", text)], &[]).load();
        assert_eq!(config.auth.hs256_secret.as_ref().map(Secret::expose), Some(text));
        assert_eq!(&*config.kafka.group, text);
        let config = given("", &[], &[("auth.hs256_secret", text)]).load();
        assert_eq!(config.hs256_secret().map(Secret::expose), Ok(text));
    }
}

#[test]
fn numbers_and_lists_of_the_environment_are_read() {
    let environment = [
        ("HEADROOM_STORE__CONNECTIONS", "12"),
        ("HEADROOM_WORKER__BATCH_BYTES", "1GiB"),
        ("HEADROOM_MAX_FUTURE", "1h 30m"),
        ("HEADROOM_ALERTS__THRESHOLDS", "[{ remainingPercent = 12.5 }, { remaining = \"0.000001\" }]"),
    ];
    let config = given("", &environment, &[]).load();
    assert_eq!((config.store.connections.get(), config.worker.batch_bytes.bytes()), (12, 1 << 30));
    assert_eq!(config.max_future.duration().as_secs(), 5400);
    let millionths = Quantity::from_millionths;
    let expected = [Threshold::RemainingPercent(millionths(12_500_000)), Threshold::Remaining(millionths(1))];
    assert_eq!(config.alerts.thresholds.0, expected);
}

#[test]
fn variables_of_others_are_left_alone() {
    let environment = [
        ("HEADROOM_CONFIG", "x"),
        ("HEADROOM_BIN", "x"),
        ("HEADROOM_REPO", "x"),
        ("HEADROOM_TEST_KAFKA", "x"),
        ("HEADROOM_BENCH_ADMIN_PORT", "x"),
        ("HEADROOMS", "x"),
        ("PATH", "x"),
    ];
    assert_eq!(given("", &environment, &[]).load(), Config::default());
}

#[test]
fn librdkafkas_properties_are_text_by_dotted_names() {
    let file = "[kafka.properties]\nsecurity.protocol = \"SASL_SSL\"\n\"sasl.username\" = \"file\"\n\
                enable.ssl.certificate.verification = false\nsocket.timeout.ms = 500";
    let environment = [
        ("HEADROOM_KAFKA__PROPERTIES__SASL_USERNAME", "environment"),
        ("HEADROOM_KAFKA__PROPERTIES__SASL_PASSWORD", "12345"),
    ];
    let config = given(file, &environment, &[("kafka.properties.ssl.ca.location", "/ca.pem")]).load();
    let expected = [
        ("enable.ssl.certificate.verification", "false"),
        ("sasl.password", "12345"),
        ("sasl.username", "environment"),
        ("security.protocol", "SASL_SSL"),
        ("socket.timeout.ms", "500"),
        ("ssl.ca.location", "/ca.pem"),
    ];
    assert_eq!(config.kafka.properties.iter().collect::<Vec<_>>(), expected);
    let table = "{ \"sasl.username\" = \"x\", ssl.ca.location = \"/ca.pem\" }";
    let config = given("", &[("HEADROOM_KAFKA__PROPERTIES", table)], &[]).load();
    let expected = [("sasl.username", "x"), ("ssl.ca.location", "/ca.pem")];
    assert_eq!(config.kafka.properties.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn thresholds_are_exact_decimals() {
    for (written, millionths) in [
        ("20", 20_000_000),
        ("20.0", 20_000_000),
        ("0.1", 100_000),
        ("+0.1", 100_000),
        ("1_000.5", 1_000_500_000),
        ("1e2", 100_000_000),
        ("9223372036854.775807", i64::MAX),
        ("\"9223372036854.775807\"", i64::MAX),
    ] {
        let config = from_file(&format!("alerts.thresholds = [{{ remaining = {written} }}]"));
        assert_eq!(
            config.alerts.thresholds.0,
            [Threshold::Remaining(Quantity::from_millionths(millionths))],
            "{written}"
        );
    }
    assert!(from_file("[alerts]\nthresholds = []").alerts.thresholds.0.is_empty());
    assert_eq!(from_file("[[alerts.thresholds]]\nremainingPercent = 5").alerts.thresholds.0.len(), 1);
}
