//! What is shown of a config, and `config/headroom.toml` held to the defaults.

use super::*;

/// The file of the repository.
const REFERENCE: &str = include_str!("../../../config/headroom.toml");

#[test]
fn secrets_are_never_shown() {
    let file = "[store]\nurl = \"postgres://u:s3cret@db/x\"\nread_url = \"postgres:///x?password=s3cret\"\n\
                [auth]\nhs256_secret = \"s3cret\"\njwks_url = \"https://u:s3cret@keys/\"\n[kafka.properties]\n\"sasl.username\" = \"shown\"\n\
                \"sasl.password\" = \"s3cret\"\nssl.key.password = \"s3cret\"\nssl.key.pem = \"s3cret\"\n\
                sasl.oauthbearer.client.secret = \"s3cret\"\nsasl.oauthbearer.config = \"s3cret\"";
    let config = from_file(file);
    let toml = config.to_toml().expect("TOML");
    for text in [&toml, &format!("{config:?}")] {
        assert!(!text.contains("s3cret") && text.contains("[redacted]") && text.contains("shown"), "{text}");
    }
    assert!(toml.contains("url = \"postgres://u:[redacted]@db/x\""), "{toml}");
    assert_eq!(config.store_url().map(StoreUrl::expose), Ok("postgres://u:s3cret@db/x"));
    for (file, line) in [
        ("auth.hs256_secret = 12345", "auth.hs256_secret = [redacted] (file FILE): wants text"),
        ("store.url = [\"postgres://u:s3cret@db/x\"]", "store.url = [redacted] (file FILE): wants text"),
        ("auth.hs256_secret = \"\"", "auth.hs256_secret = [redacted] (file FILE): wants text that is not empty"),
        (
            "kafka.properties.sasl.password = [\"s3cret\"]",
            "kafka.properties.sasl.password = [redacted] (file FILE): wants text",
        ),
        (
            "store.url = \"mysql://u:s3cret@db\"",
            "store.url = \"mysql://u:[redacted]@db\" (file FILE): \
             wants postgres://user@host/database, or sqlite://file for one process with all roles",
        ),
    ] {
        assert_eq!(given(file, &[], &[]).refused(Needs::Nothing), line);
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let file = "max_future = \"90m\"\n[alerts]\nthresholds = [{ remaining = 0.5 }, { remainingPercent = 120 }]\n\
                [worker]\nbatch_bytes = \"1536KiB\"\n[kafka.properties]\n\"sasl.username\" = \"it's \\\"x\\\"\"";
    let config = from_file(file);
    let toml = config.to_toml().expect("TOML");
    assert_eq!(from_file(&toml), config, "{toml}");
    assert!(toml.contains("batch_bytes = \"1536KiB\"") && toml.contains("max_future = \"90m\""), "{toml}");
}

#[test]
fn the_reference_file_is_at_the_defaults_and_has_every_key() {
    assert_eq!(from_file(REFERENCE), Config::default());
    // With its examples, which stand behind a # without a blank; a secret and its file are not set both.
    let examples: String = REFERENCE.lines().map(|line| without_mark(line).to_owned() + "\n").collect();
    let of_secret_file = |line: &&str| line.contains("_file\" = ") || line.contains("_file = \"/run/secrets/");
    from_file(&examples.lines().filter(|line| !of_secret_file(line)).collect::<Vec<_>>().join("\n"));
    let document: toml_edit::DocumentMut = examples.parse().expect("TOML");
    for (key, _) in keys::KEYS {
        let at = key.split('.').try_fold(document.as_item(), |item, name| item.get(name));
        assert!(at.is_some(), "{key} is not in config/headroom.toml");
    }
}

fn without_mark(line: &str) -> &str {
    match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example,
        _ => line,
    }
}

#[test]
fn every_default_has_its_key() {
    let shown: toml_edit::DocumentMut = Config::default().to_toml().expect("TOML").parse().expect("TOML");
    let mut shown_keys = Vec::new();
    for (section, item) in shown.iter() {
        match item.as_table() {
            Some(table) => shown_keys.extend(table.iter().map(|(name, _)| format!("{section}.{name}"))),
            None => shown_keys.push(section.to_owned()),
        }
    }
    for key in &shown_keys {
        assert!(keys::KEYS.iter().any(|(known, _)| known == key), "{key} is not in the table of keys");
    }
}
