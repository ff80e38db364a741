//! The command line as a person or a script meets it: exit codes, and one line on standard error for what is wrong.

use std::process::{Command, Output};

/// Runs the program with nothing in its environment but these variables.
fn headroom(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headroom"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// All that the roles need.
const ENOUGH: [(&str, &str); 3] = [
    ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092"),
    ("HEADROOM_STORE__URL", "postgres://headroom:s3cret@localhost/headroom"),
    ("HEADROOM_AUTH__HS256_SECRET", "123456"),
];

#[test]
fn help_and_version_are_no_failures() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["topics", "create", "--help"]] {
        let output = headroom(arguments, &[]);
        assert_eq!(code(&output), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("headroom"), "{arguments:?}");
    }
}

#[test]
fn wrong_use_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["fly"],
        &["run", "--role", "writer"],
        &["run", "--role", ""],
        &["run", "--set", "kafka.group"],
        &["config"],
        &["demo", "--for", "0s"],
        &["topics", "create"],
        &["progress", "accept-gap", "--partition", "1"],
        &["progress", "accept-gap", "--topic", "t", "--partition=-1"],
        &["topics", "create", "--partitions", "0"],
        &["topics", "create", "--partitions", "4", "--retention", "soon"],
        &["token", "--customer-ids", "1,x"],
        &["token", "--customer-ids=-1"],
        &["token", "--expires", "0s"],
    ] {
        let output = headroom(arguments, &ENOUGH);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_config_is_one_line_and_exit_code_2() {
    for (arguments, environment, line) in [
        (
            &["totals"][..],
            &[][..],
            "headroom: store.url is missing: set it in the config file or as HEADROOM_STORE__URL\n",
        ),
        (
            &["migrate", "--set", "store.url=db"],
            &[],
            "headroom: store.url = \"db\" (--set): wants postgres://user@host/database, or sqlite://file for one process \
             with all roles\n",
        ),
        (
            &["config", "check", "--listen", "80"],
            &ENOUGH,
            "headroom: http.listen = \"80\" (--listen): wants an IP address and a port, such as \"127.0.0.1:8080\"\n",
        ),
        (
            &["totals", "--config", "/nowhere.toml"],
            &[],
            "headroom: file /nowhere.toml: No such file or directory (os error 2)\n",
        ),
        (
            &["totals"],
            &[("HEADROOM_CONFIG", "/nowhere.toml")],
            "headroom: file /nowhere.toml: No such file or directory (os error 2)\n",
        ),
        (
            &["run", "--role", "worker,relay"],
            &[("HEADROOM_STORE__URL", "sqlite://x.db"), ENOUGH[0]],
            "headroom: store.url = \"sqlite://x.db\" (environment variable HEADROOM_STORE__URL): SQLite is for one process \
             with all roles (worker, relay, reader), and this one is worker, relay; use postgres://\n",
        ),
        (
            &["run"],
            &[ENOUGH[0], ENOUGH[1], ENOUGH[2], ("RUST_LOG", "headroom=loud")],
            "headroom: RUST_LOG = \"headroom=loud\" (environment variable): wants levels, such as \"info,headroom=debug\"\n",
        ),
        (
            &["run"],
            &ENOUGH[..2],
            "headroom: auth.hs256_secret is missing, and the reader role needs it (or auth.jwks_file, or auth.jwks_url) to check \
             tokens: set it in the config file or as HEADROOM_AUTH__HS256_SECRET\n",
        ),
    ] {
        let output = headroom(arguments, environment);
        assert_eq!((code(&output), stderr(&output).as_str()), (Some(2), line), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn config_check_prints_what_is_in_effect() {
    let output = headroom(&["config", "check", "--set", "kafka.group=billing", "--admin-listen", "[::1]:1"], &ENOUGH);
    assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    for part in [
        "time_zone = \"UTC\"\n",
        "retention = \"400d\"\n",
        "group = \"billing\"\n",
        "listen = \"[::1]:1\"\n",
        "hs256_secret = \"[redacted]\"\n",
        "url = \"postgres://headroom:[redacted]@localhost/headroom\"\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.ends_with("\n# ok\n") && !text.contains("s3cret") && !text.contains("123456"), "{text}");
}

#[test]
fn the_file_may_be_named_before_or_after_the_command() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "[kafka]\ngroup = \"of the file\"\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let variable = ("HEADROOM_CONFIG", path);
    let reader = ["config", "check", "--role", "reader"];
    for (arguments, environment) in [
        ([&["--config", path][..], &reader].concat(), ENOUGH.to_vec()),
        ([&reader[..], &["--config", path]].concat(), ENOUGH.to_vec()),
        (reader.to_vec(), [&ENOUGH[..], &[variable]].concat()),
        ([&reader[..], &["--config", path]].concat(), [&ENOUGH[..], &[("HEADROOM_CONFIG", "/nowhere.toml")]].concat()),
    ] {
        let output = headroom(&arguments, &environment);
        assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout(&output).contains("group = \"of the file\""), "{arguments:?}");
    }
}

#[test]
fn a_token_says_what_it_was_asked_to() {
    let arguments = [
        "token",
        "--customer-ids",
        "1,2",
        "--contract-owner-ids",
        "7",
        "--expires",
        "2h",
        "--set",
        "auth.audience=balances",
    ];
    let output = headroom(&arguments, &ENOUGH);
    assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""));
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_audience(&["balances"]);
    let key = jsonwebtoken::DecodingKey::from_secret(b"123456");
    let token = stdout(&output);
    let mut claims =
        jsonwebtoken::decode::<serde_json::Value>(token.trim_end(), &key, &rules).expect("a good token").claims;
    assert!(claims["exp"].take().is_u64());
    let expected = serde_json::json!({
        "exp": null,
        "scope": "balances:read",
        "customer_ids": [1, 2],
        "contract_owner_ids": [7],
        "aud": "balances",
    });
    assert_eq!(claims, expected);
}
