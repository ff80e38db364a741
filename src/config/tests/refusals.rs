//! What is refused by itself, each with its exact line.

use std::path::Path;

use super::*;

const THRESHOLDS: &str = "wants a list such as [{ remainingPercent = 20 }, { remaining = 0 }], each of a decimal >= 0 \
                          with at most 6 decimals";

#[test]
fn bad_values_of_the_file_are_one_line() {
    let url = "wants postgres://user@host/database, or sqlite://file for one process with all roles";
    let span = "wants a time such as \"24h\" or \"400d\", more than nothing and at most 100 years";
    let topic = "wants a topic's name: 1 to 249 letters, digits, dots, underscores and hyphens";
    let listen = "wants an IP address and a port, such as \"127.0.0.1:8080\"";
    let size = "wants a size from 1MiB to 64GiB, such as \"16MiB\"";
    let held = "wants a size from 1MiB to 1GiB, such as \"16MiB\"";
    let servers = "wants host:port, or several with commas between, such as \"kafka-1:9092,kafka-2:9092\"";
    for (key, value, told) in [
        ("time_zone", "\"Mars/Olympus\"", "wants an IANA time zone, such as \"UTC\" or \"Europe/London\""),
        ("time_zone", "1", "wants text"),
        ("max_future", "\"0s\"", span),
        ("max_future", "\"101y\"", span),
        ("max_future", "\"soon\"", span),
        ("retention", "400", "wants text"),
        ("retention", "\"-1d\"", span),
        ("kafka.bootstrap_servers", "\"\"", servers),
        ("kafka.bootstrap_servers", "\"kafka\"", servers),
        ("kafka.bootstrap_servers", "\"kafka:9092,\"", servers),
        ("kafka.bootstrap_servers", "\"a:1, b:2\"", servers),
        ("kafka.bootstrap_servers", "[\"kafka:9092\"]", "wants text"),
        ("kafka.fetch_bytes", "\"16\"", size),
        ("kafka.fetch_records", "999", "wants a whole number from 1000 to 100000000"),
        ("store.timeout", "\"\"", span),
        ("alerts.batch", "0", "wants a whole number from 1 to 100000"),
        ("kafka.group", "\"\"", "wants text that is not empty"),
        ("kafka.group", "true", "wants text"),
        ("kafka.partitioner", "\"random\"", "wants \"murmur2\" or \"crc32\""),
        ("topics.usage", "\"usage events\"", topic),
        ("topics.assignments", "\"..\"", topic),
        ("topics.alerts", "\"\"", topic),
        ("store.url", "\"mysql://db/x\"", url),
        ("store.url", "\"/var/lib/x.db\"", url),
        ("store.url", "\"sqlite://\"", url),
        ("store.read_url", "\"db\"", url),
        ("store.connections", "0", "wants a whole number from 1 to 1000"),
        ("store.connections", "1001", "wants a whole number from 1 to 1000"),
        ("store.connections", "-1", "wants a whole number from 1 to 1000"),
        ("store.connections", "\"4\"", "wants a whole number from 1 to 1000"),
        ("store.connections", "\"1.5\"", "wants a whole number from 1 to 1000"),
        ("store.read_connections", "[4]", "wants a whole number from 1 to 1000"),
        (
            "store.read_timeout",
            "\"soon\"",
            "wants a time such as \"24h\" or \"400d\", more than nothing and at most 100 years",
        ),
        ("http.listen", "\"8080\"", listen),
        ("http.listen", "\"localhost:8080\"", listen),
        ("http.url_bytes", "1000", "wants a whole number from 1024 to 65534"),
        ("http.head_bytes", "8191", "wants a whole number from 8192 to 2097152"),
        ("http.head_time", "\"0s\"", span),
        ("http.connections", "0", "wants a whole number from 1 to 100000"),
        ("http.answers", "0", "wants a whole number from 1 to 10000"),
        ("admin.listen", "\"127.0.0.1:70000\"", listen),
        ("admin.listen", "9464", "wants text"),
        ("auth.jwks_file", "\" \"", "wants text that is not empty"),
        ("auth.jwks_url", "\"ftp://keys\"", "wants an http:// or https:// address"),
        ("auth.audience", "\"\"", "wants text that is not empty"),
        ("auth.issuer", "\"\"", "wants text that is not empty"),
        ("alerts.source", "\"\"", "wants text that is not empty"),
        ("alerts.thresholds", "20", THRESHOLDS),
        ("alerts.thresholds", "[20]", THRESHOLDS),
        ("alerts.thresholds", "[{}]", THRESHOLDS),
        ("worker.batch_records", "0", "wants a whole number from 1 to 100000"),
        ("worker.batch_records", "100001", "wants a whole number from 1 to 100000"),
        ("worker.batch_customers", "0", "wants a whole number from 1 to 100000"),
        ("worker.batches", "0", "wants a whole number from 1 to 10000"),
        ("worker.batch_bytes", "\"16\"", held),
        ("worker.batch_bytes", "\"1KiB\"", held),
        ("worker.behind_bytes", "\"2GiB\"", held),
        ("worker.cache_bytes", "\"65GiB\"", size),
        ("worker.cache_bytes", "\"99999999999999999999GiB\"", size),
        ("log.format", "\"xml\"", "wants \"text\" or \"json\""),
        ("log.level", "\"loud\"", "wants \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\""),
    ] {
        let line = given(&format!("{key} = {value}"), &[], &[]).refused(Needs::Nothing);
        assert_eq!(line, format!("{key} = {value} (file FILE): {told}"));
    }
}

#[test]
fn bad_thresholds_are_refused() {
    for list in [
        "[{ remaining = -1 }]",
        "[{ remaining = 0.0000001 }]",
        "[{ remaining = 1, remainingPercent = 1 }]",
        "[{ remaining = 1, other = 1 }]",
        "[{ remaining = nan }]",
        "[{ remaining = true }]",
        "[{ remaining = 9223372036854.775808 }]",
    ] {
        let line = given(&format!("alerts.thresholds = {list}"), &[], &[]).refused(Needs::Nothing);
        assert!(line.starts_with("alerts.thresholds = [{\""), "{line}");
        assert!(line.ends_with(&format!(" (file FILE): {THRESHOLDS}")), "{line}");
    }
}

#[test]
fn bad_values_name_where_they_came_from() {
    for (variable, value, line) in [
        (
            "HEADROOM_HTTP__LISTEN",
            "here",
            "http.listen = \"here\" (environment variable HEADROOM_HTTP__LISTEN): \
             wants an IP address and a port, such as \"127.0.0.1:8080\"",
        ),
        (
            "HEADROOM_STORE__CONNECTIONS",
            "many",
            "store.connections = \"many\" (environment variable HEADROOM_STORE__CONNECTIONS): \
             wants a whole number from 1 to 1000",
        ),
        (
            "HEADROOM_KAFKA__GROUP",
            "",
            "kafka.group = \"\" (environment variable HEADROOM_KAFKA__GROUP): wants text that is not empty",
        ),
        (
            "HEADROOM_KAFKA__PROPERTIES",
            "x",
            "kafka.properties = [redacted] (environment variable HEADROOM_KAFKA__PROPERTIES): wants a table",
        ),
    ] {
        let file = "[http]\nlisten = \"also here\"";
        let file = if variable == "HEADROOM_HTTP__LISTEN" { file } else { "" };
        assert_eq!(given(file, &[(variable, value)], &[]).refused(Needs::Nothing), line);
    }
    let line = given("", &[], &[("log.format", "xml")]).refused(Needs::Nothing);
    assert_eq!(line, "log.format = \"xml\" (--set): wants \"text\" or \"json\"");
    let line = given("[kafka.properties]\n\"group.id\" = \"x\"", &[], &[]).refused(Needs::Nothing);
    assert_eq!(line, "kafka.properties = [redacted] (file FILE): \"group.id\" is set by kafka.group");
}

#[test]
fn unknown_keys_are_refused_wherever_they_are() {
    let kafka = "there are: kafka.bootstrap_servers, kafka.group, kafka.group_instance_id, kafka.partitioner, \
                 kafka.fetch_bytes, kafka.fetch_records, kafka.properties";
    let top =
        "there are: time_zone, max_future, retention, kafka, topics, store, http, admin, auth, alerts, worker, log";
    for (file, key, there) in [
        ("[kafka]\ngrup = \"x\"", "kafka.grup", kafka),
        ("colour = \"red\"", "colour", top),
        ("[kafak]\ngroup = \"x\"", "kafak", top),
        ("\"kafka.group\" = \"x\"", "kafka.group", kafka),
        ("[kafka.group2]\nx = 1", "kafka.group2", kafka),
    ] {
        let line = given(file, &[], &[]).refused(Needs::Nothing);
        assert_eq!(line, format!("unknown key \"{key}\" (file FILE); {there}"));
    }
    for (variable, key, there) in [
        ("HEADROOM_KAFKA__GRUP", "kafka.grup", kafka),
        ("HEADROOM_KAFKA_GROUP", "kafka_group", top),
        ("HEADROOM_KAFKA", "kafka", top),
        ("HEADROOM_KAFKA__GROUP__X", "kafka.group.x", kafka),
        ("HEADROOM_", "", top),
    ] {
        let line = given("", &[(variable, "s3cret")], &[]).refused(Needs::Nothing);
        assert_eq!(line, format!("unknown key \"{key}\" (environment variable {variable}); {there}"));
    }
    let line = given("", &[], &[("kafka.grup", "x")]).refused(Needs::Nothing);
    assert_eq!(line, format!("unknown key \"kafka.grup\" (--set); {kafka}"));
    let line = given("kafka = \"x\"", &[], &[]).refused(Needs::Nothing);
    assert_eq!(line, "kafka (file FILE): wants a table of keys");
}

#[test]
fn a_file_that_cannot_be_read_is_one_line_without_its_text() {
    let line = given("[auth]\nhs256_secret = \"s3cret\nx = 1", &[], &[]).refused(Needs::Nothing);
    assert!(line.starts_with("file FILE, line 2: no good TOML: ") && !line.contains("s3cret"), "{line}");
    let sources = Sources { file: Some(Path::new("/nowhere/headroom.toml").to_owned()), ..Sources::default() };
    let line = Config::load(&sources, Needs::Nothing).expect_err("refused").to_string();
    assert_eq!(line, "file /nowhere/headroom.toml: No such file or directory (os error 2)");
}
