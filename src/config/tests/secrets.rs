//! Secrets that lie in files, and that none is ever shown.

use super::*;

const SECRET: &str = "s3cret: /?#%&=\"'";

/// A file that holds this, and its path.
fn holding(bytes: &[u8]) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    (file, path)
}

/// What the program shows of a config, by its command and in its log.
fn shown(config: &Config) -> String {
    format!("{}{config:?}", config.to_toml().expect("TOML"))
}

#[test]
fn every_secret_may_lie_in_a_file() {
    let property = |config: &Config, name: &str| {
        config.kafka.properties.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
    };
    type Taken = fn(&Config) -> Option<String>;
    let taken: [(&str, &str, Taken); 4] = [
        ("store.url", "postgres://u:s3cret@db/x", |config| config.store_url().ok().map(|url| url.expose().to_owned())),
        ("store.read_url", "postgres://u:s3cret@replica/x", |config| {
            config.read_url().ok().map(|url| url.expose().to_owned())
        }),
        ("auth.hs256_secret", SECRET, |config| config.hs256_secret().ok().map(|secret| secret.expose().to_owned())),
        ("auth.jwks_url", "https://u:s3cret@keys/", |config| {
            config.auth.jwks_url.as_ref().map(|url| url.expose().to_owned())
        }),
    ];
    for (key, secret, value) in taken {
        for end in ["", "\n", "\r\n"] {
            let (_file, path) = holding(format!("{secret}{end}").as_bytes());
            let rest = if key == "store.read_url" { "store.url = \"postgres://db/x\"\n" } else { "" };
            let config = from_file(&format!("{rest}{key}_file = \"{path}\""));
            assert_eq!(value(&config).as_deref(), Some(secret), "{key}");
            let shown = shown(&config);
            assert!(!shown.contains("s3cret") && shown.contains(&path), "{shown}");
            assert_eq!(from_file(&config.to_toml().expect("TOML")), config, "what is shown can be read again");
            let variable = format!("HEADROOM_{}_FILE", key.to_ascii_uppercase().replace('.', "__"));
            assert_eq!(value(&given(rest, &[(&variable, &path)], &[]).load()).as_deref(), Some(secret), "{variable}");
        }
    }
    let (_file, path) = holding(format!("{SECRET}\n").as_bytes());
    for name in ["sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret"] {
        let written = format!("[kafka.properties]\n\"{name}_file\" = \"{path}\"\n\"sasl.username\" = \"shown\"");
        let config = from_file(&written);
        assert_eq!(property(&config, name).as_deref(), Some(SECRET));
        assert_eq!(property(&config, &format!("{name}_file")), None, "librdkafka knows no such name");
        let shown = shown(&config);
        assert!(!shown.contains("s3cret") && shown.contains(&path), "{shown}");
        assert_eq!(from_file(&config.to_toml().expect("TOML")), config);
        let variable = format!("HEADROOM_KAFKA__PROPERTIES__{}_FILE", name.to_ascii_uppercase().replace('.', "_"));
        assert_eq!(property(&given("", &[(&variable, &path)], &[]).load(), name).as_deref(), Some(SECRET));
    }
    // A file of librdkafka's own stays one.
    let of_its_own = "HEADROOM_KAFKA__PROPERTIES__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE";
    let config = given("", &[(of_its_own, "/nowhere")], &[]).load();
    assert_eq!(property(&config, "sasl.oauthbearer.assertion.private.key.file").as_deref(), Some("/nowhere"));
}

#[test]
fn the_stores_password_may_lie_in_a_file_alone() {
    let (_file, path) = holding(format!("{SECRET}\n").as_bytes());
    let encoded: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let with = |url: &str, read_url: &str| {
        format!("[store]\nurl = \"{url}\"\nread_url = \"{read_url}\"\npassword_file = \"{path}\"")
    };
    let config = from_file(&with("postgres://u@db/x", "postgres://u@replica/x?sslmode=require"));
    let exposed = |url: Result<&StoreUrl, ConfigError>| url.expect("set").expose().to_owned();
    assert_eq!(exposed(config.store_url()), format!("postgres://u@db/x?password={encoded}"));
    assert_eq!(exposed(config.read_url()), format!("postgres://u@replica/x?sslmode=require&password={encoded}"));
    let toml = config.to_toml().expect("TOML");
    assert!(!shown(&config).contains(&encoded) && toml.contains("url = \"postgres://u@db/x\""), "{toml}");
    assert_eq!(from_file(&toml), config);

    let refused = |file: &str| given(file, &[], &[]).refused(Needs::Nothing);
    let begin = format!("store.password_file = \"{path}\" (file FILE): ");
    for (url, read_url, why) in [
        ("postgres://u:s3cret@db/x", "postgres://u@db/x", "store.url holds a password too; set one of the two"),
        (
            "postgres://u@db/x",
            "postgres://u@db/x?password=s3cret",
            "store.read_url holds a password too; set one of the two",
        ),
        ("sqlite://x.db", "sqlite://x.db", "store.url is SQLite, which has no password; take the key out"),
    ] {
        assert_eq!(refused(&with(url, read_url)), format!("{begin}{why}"));
    }
}

#[test]
fn a_file_that_is_no_good_is_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().to_str().expect("UTF-8");
    let (_empty, empty) = holding(b"");
    let (_line_end, line_end) = holding(b"\r\n");
    let (_binary, binary) = holding(b"s3cret\xff");
    let (_large, large) = holding(&vec![b'x'; 2 << 20]);
    let missing = format!("{folder}/missing");
    let keys = ["store.url_file", "store.read_url_file", "store.password_file", "auth.hs256_secret_file"];
    for key in keys.into_iter().chain(["auth.jwks_url_file", "kafka.properties.sasl.password_file"]) {
        for (path, why) in [
            (missing.as_str(), "the file cannot be read: No such file or directory (os error 2)"),
            (folder, "the file cannot be read: Is a directory (os error 21)"),
            (&empty, "the file is empty"),
            (&line_end, "the file is empty"),
            (&binary, "the file is no UTF-8"),
            (&large, "the file has more than 1048576 bytes and is no secret"),
        ] {
            let line = given(&format!("{key} = \"{path}\""), &[], &[]).refused(Needs::Nothing);
            assert_eq!(line, format!("{key} = \"{path}\" (file FILE): {why}"));
        }
    }
    for key in keys {
        let line = given(&format!("{key} = 5"), &[], &[]).refused(Needs::Nothing);
        assert_eq!(line, format!("{key} = 5 (file FILE): wants text"));
    }
}

#[test]
fn a_secret_and_its_file_are_not_both_set() {
    let (_file, path) = holding(b"postgres://u:s3cret@other/x");
    for (key, value) in [
        ("store.url", "postgres://u:s3cret@db/x"),
        ("store.read_url", "postgres://u:s3cret@db/x"),
        ("auth.hs256_secret", "s3cret"),
        ("auth.jwks_url", "https://u:s3cret@keys/"),
        ("kafka.properties.sasl.password", "s3cret"),
    ] {
        // Wherever the two come from.
        let file = format!("{key}_file = \"{path}\"");
        let expected =
            |source: &str| format!("{key}_file = \"{path}\" ({source}): stands beside {key}; set one of the two");
        let line = given(&format!("{file}\n{key} = \"{value}\""), &[], &[]).refused(Needs::Nothing);
        assert_eq!(line, expected("file FILE"));
        let line = given(&file, &[], &[(key, value)]).refused(Needs::Nothing);
        assert_eq!(line, expected("file FILE"));
    }
}

#[test]
fn what_a_file_holds_is_judged_as_if_it_stood_in_the_config_and_never_shown() {
    let (_file, path) = holding(b"s3cret\n");
    for (key, why) in [
        ("store.url", "wants postgres://user@host/database, or sqlite://file for one process with all roles"),
        ("auth.jwks_url", "wants an http:// or https:// address"),
    ] {
        let line = given(&format!("{key}_file = \"{path}\""), &[], &[]).refused(Needs::Nothing);
        assert_eq!(line, format!("{key} = [redacted] (file {path} of {key}_file): {why}"));
    }
    let file = format!("[kafka.properties]\n\"group.id_file\" = \"{path}\"");
    let line = given(&file, &[], &[]).refused(Needs::Nothing);
    assert!(line.contains("\"group.id\" is set by kafka.group") && !line.contains("s3cret"), "{line}");
}

#[test]
fn no_key_shows_a_password_whatever_is_wrong_with_it() {
    let url = "postgres://u:s3cret@db/x?password=s3cret&sslmode=no";
    for (key, _) in keys::KEYS {
        // A list is of the wrong kind for every key but the two that want one, and an address for those too.
        let values = match key {
            "auth.hs256_secret" => vec!["[\"s3cret\"]".to_owned(), "{ a = \"s3cret\" }".to_owned()],
            keys::PROPERTIES => vec!["{ \"sasl.password\" = [\"s3cret\"] }".to_owned(), "[\"s3cret\"]".to_owned()],
            key if key.ends_with("url") => {
                vec![format!("[\"{url}\"]"), format!("\"x{url}\""), format!("{{ a = \"{url}\" }}")]
            }
            _ => continue,
        };
        for value in values {
            let line = given(&format!("{key} = {value}"), &[], &[]).refused(Needs::Nothing);
            assert!(line.starts_with(key) && !line.contains("s3cret"), "{line}");
        }
    }
}
