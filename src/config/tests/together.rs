//! What is refused for what stands beside it, or for what a command needs.

use super::*;

#[test]
fn values_must_fit_each_other() {
    for (file, line) in [
        (
            "http.listen = \"127.0.0.1:9464\"",
            "http.listen = \"127.0.0.1:9464\" (file FILE): is admin.listen too (127.0.0.1:9464); give them two ports",
        ),
        ("admin.listen = \"127.0.0.1:8080\"", "http.listen is admin.listen too (127.0.0.1:8080); give them two ports"),
        (
            "http.url_bytes = 65534\nhttp.head_bytes = 65534",
            "http.head_bytes = 65534 (file FILE): is not more than http.url_bytes (65534), and holds it",
        ),
        (
            "topics.assignments = \"usage-events\"",
            "topics.assignments = \"usage-events\" (file FILE): is topics.usage too; give them two topics",
        ),
        (
            "topics.alerts = \"usage-events\"",
            "topics.alerts = \"usage-events\" (file FILE): is an input topic too; give it one of its own",
        ),
        (
            "store.url = \"postgres://u:s3cret@db/x\"\nstore.read_url = \"sqlite://x.db\"",
            "store.read_url = \"sqlite://x.db\" (file FILE): is no replica of store.url \
             (postgres://u:[redacted]@db/x); leave it away",
        ),
    ] {
        assert_eq!(given(file, &[], &[]).refused(Needs::Nothing), line);
    }
    let free = from_file("http.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"");
    assert_eq!(free.http.listen, free.admin.listen);
}

#[test]
fn what_a_command_needs_must_be_there() {
    let missing = |key: &str, why: &str, variable: &str| {
        format!("{key} is missing{why}: set it in the config file or as {variable}")
    };
    let store = missing("store.url", "", "HEADROOM_STORE__URL");
    let kafka = missing("kafka.bootstrap_servers", "", "HEADROOM_KAFKA__BOOTSTRAP_SERVERS");
    let reader = ", and the reader role needs it (or auth.jwks_file, or auth.jwks_url) to check tokens";
    let token = ", and a token is signed with it";
    let secret = |why| missing("auth.hs256_secret", why, "HEADROOM_AUTH__HS256_SECRET");
    let url = "store.url = \"postgres://db/x\"";
    let both = "store.url = \"postgres://db/x\"\nkafka.bootstrap_servers = \"k:9092\"";
    let roles = |roles: &[Role]| Needs::Roles(Roles::of(roles));
    for (file, needs, line) in [
        ("", Needs::Store, store.clone()),
        ("", Needs::Kafka, kafka.clone()),
        ("", Needs::TokenSecret, secret(token)),
        ("", roles(&Role::ALL), store),
        (url, roles(&[Role::Worker]), kafka.clone()),
        (url, roles(&[Role::Relay]), kafka),
        (url, roles(&[Role::Reader]), secret(reader)),
        (both, roles(&Role::ALL), secret(reader)),
    ] {
        assert_eq!(given(file, &[], &[]).refused(needs), line);
    }
    let full = given(&format!("{both}\nauth.hs256_secret = \"x\""), &[], &[]);
    assert_eq!(Config::load(&full.sources, roles(&Role::ALL)).map(drop), Ok(()));
}

#[test]
fn sqlite_is_for_one_process_with_all_roles() {
    let file = "store.url = \"sqlite://x.db\"\nkafka.bootstrap_servers = \"k:9092\"\nauth.hs256_secret = \"x\"";
    let sqlite = given(file, &[], &[]);
    assert!(Config::load(&sqlite.sources, Needs::Roles(Roles::ALL)).is_ok());
    assert_eq!(
        sqlite.refused(Needs::Roles(Roles::of(&[Role::Relay, Role::Worker]))),
        "store.url = \"sqlite://x.db\" (file FILE): SQLite is for one process with all roles (worker, relay, reader), \
         and this one is worker, relay; use postgres://"
    );
}

#[test]
fn tokens_are_checked_by_one_of_three() {
    let file = |keys: &str| format!("store.url = \"postgres://db/x\"\n[auth]\n{keys}");
    let reader = Needs::Roles(Roles::of(&[Role::Reader]));
    let (secret, path, url) = ("hs256_secret = \"s3cret\"\n", "jwks_file = \"x\"\n", "jwks_url = \"https://keys/\"\n");
    for one in [secret, path, url] {
        let alone = given(&file(one), &[], &[]);
        assert_eq!(Config::load(&alone.sources, reader).map(drop), Ok(()), "{one}");
    }
    for (keys, line) in [
        (
            format!("{secret}{path}"),
            "auth.hs256_secret = [redacted] (file FILE): stands beside auth.jwks_file; tokens are checked by one of them, \
             take out the rest",
        ),
        (
            format!("{path}{url}"),
            "auth.jwks_file = \"x\" (file FILE): stands beside auth.jwks_url; tokens are checked by one of them, take out \
             the rest",
        ),
    ] {
        assert_eq!(given(&file(&keys), &[], &[]).refused(reader), line);
    }
}
