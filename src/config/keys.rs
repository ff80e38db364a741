//! Every key there is, in one table. What is not here is refused; what is here stands in `config/headroom.toml`.

/// How a value is written where all values are text: in the environment and after `--set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is, whatever it looks like: a secret of digits, quotes or brackets needs no care.
    Text,
    /// As in the TOML file: numbers, lists and tables.
    Toml,
}

/// All keys, in the order of `config/headroom.toml`.
pub(super) const KEYS: [(&str, Form); 54] = [
    ("time_zone", Form::Text),
    ("max_future", Form::Text),
    ("retention", Form::Text),
    ("kafka.bootstrap_servers", Form::Text),
    ("kafka.group", Form::Text),
    ("kafka.group_instance_id", Form::Text),
    ("kafka.partitioner", Form::Text),
    ("kafka.fetch_bytes", Form::Text),
    ("kafka.fetch_records", Form::Toml),
    (PROPERTIES, Form::Toml),
    ("topics.usage", Form::Text),
    ("topics.assignments", Form::Text),
    ("topics.alerts", Form::Text),
    ("store.url", Form::Text),
    ("store.url_file", Form::Text),
    ("store.read_url", Form::Text),
    ("store.read_url_file", Form::Text),
    ("store.password_file", Form::Text),
    ("store.connections", Form::Toml),
    ("store.read_connections", Form::Toml),
    ("store.timeout", Form::Text),
    ("store.read_timeout", Form::Text),
    ("http.listen", Form::Text),
    ("http.url_bytes", Form::Toml),
    ("http.head_bytes", Form::Toml),
    ("http.head_time", Form::Text),
    ("http.write_time", Form::Text),
    ("http.answer_time", Form::Text),
    ("http.connection_time", Form::Text),
    ("http.connections", Form::Toml),
    ("http.answers", Form::Toml),
    ("admin.listen", Form::Text),
    ("auth.hs256_secret", Form::Text),
    ("auth.hs256_secret_file", Form::Text),
    ("auth.jwks_file", Form::Text),
    ("auth.jwks_url", Form::Text),
    ("auth.jwks_url_file", Form::Text),
    ("auth.audience", Form::Text),
    ("auth.issuer", Form::Text),
    ("alerts.source", Form::Text),
    ("alerts.thresholds", Form::Toml),
    ("alerts.batch", Form::Toml),
    ("worker.batch_records", Form::Toml),
    ("worker.batch_customers", Form::Toml),
    ("worker.batch_bytes", Form::Text),
    ("worker.batches", Form::Toml),
    ("worker.accounts_bytes", Form::Text),
    ("worker.cache_bytes", Form::Text),
    ("worker.replay_pause_ms", Form::Toml),
    ("worker.behind_bytes", Form::Text),
    ("worker.stall_after", Form::Text),
    ("worker.audit_per_second", Form::Toml),
    ("log.format", Form::Text),
    ("log.level", Form::Text),
];

/// The key whose own keys are librdkafka's.
pub(super) const PROPERTIES: &str = "kafka.properties";

/// What a dotted name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// A value.
    Key(Form),
    /// A table of further keys.
    Section,
}

/// Looks a dotted name up; `None` when there is no such key.
pub(super) fn find(name: &str) -> Option<Known> {
    if let Some((_, form)) = KEYS.iter().find(|(key, _)| *key == name) {
        return Some(Known::Key(*form));
    }
    let inside = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(|(key, _)| inside(key)).then_some(Known::Section)
}

/// The names that could have been meant: those of the same section, or the sections and keys at the top.
pub(super) fn beside(name: &str) -> String {
    let section = name.split_once('.').map(|(section, _)| section).filter(|section| find(section).is_some());
    let mut names: Vec<&str> = Vec::new();
    for (key, _) in KEYS {
        let shown = match section {
            Some(section) => match key.strip_prefix(section) {
                Some(rest) if rest.starts_with('.') => key,
                _ => continue,
            },
            None => key.split('.').next().unwrap_or(key),
        };
        if names.last() != Some(&shown) {
            names.push(shown);
        }
    }
    names.join(", ")
}

/// Properties of librdkafka that name files themselves, by the start of their names.
const FILES_OF_ITS_OWN: &str = "sasl.oauthbearer.assertion.";

/// The librdkafka property that a variable's name stands for: dots for underscores, and `_file` for the file of a secret.
pub(super) fn property_of_variable(name: &str) -> String {
    let dotted = name.replace('_', ".");
    match dotted.strip_suffix(".file") {
        Some(secret) if !dotted.starts_with(FILES_OF_ITS_OWN) => format!("{secret}_file"),
        _ => dotted,
    }
}

/// The librdkafka property that a dotted name stands for.
pub(super) fn property(key: &str) -> Option<&str> {
    key.strip_prefix(PROPERTIES)?.strip_prefix('.').filter(|name| !name.is_empty())
}
