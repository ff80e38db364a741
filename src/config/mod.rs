//! The configuration: a TOML file, over it the environment, over it flags (`domain.md section 9`).
//!
//! A [`Config`] has been checked: its keys are known, its values are good by themselves and beside each other, and what
//! the command [needs](Needs) is there. Everything that is wrong is one line that names the key, the value and where it
//! came from. Whether a database answers or a file of keys can be read is for those to say who use it.
//!
//! `config/headroom.toml` holds every key at its default, and a test holds it to this module.

mod keys;
mod needs;
mod roles;
mod schema;
mod secrets;
mod sources;
mod thresholds;
mod url;
mod values;

#[cfg(test)]
mod tests;

use figment::Figment;
use figment::error::Kind;
use figment::value::Value;

pub use needs::Needs;
pub use roles::{Role, Roles};
pub use schema::{Admin, Alerts, Auth, Config, Http, Kafka, Log, LogFormat, LogLevel, Store, Topics, Worker};
pub use sources::Sources;
pub use thresholds::Thresholds;
pub use url::{StoreKind, StoreUrl, WebUrl};
pub use values::{Listen, Properties, Secret, Servers, Size, Span, Text, TopicName, Whole, Zone};

/// What is wrong with the configuration, in one line for a person. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// What another part found wrong with its keys.
    pub(crate) fn new(line: impl Into<String>) -> ConfigError {
        ConfigError(line.into())
    }

    fn missing(key: &str, why: &str) -> ConfigError {
        let variable = key.to_ascii_uppercase().replace('.', "__");
        ConfigError(format!("{key} is missing{why}: set it in the config file or as HEADROOM_{variable}"))
    }
}

impl Config {
    /// Reads and checks everything.
    pub fn load(sources: &Sources, needs: Needs) -> Result<Config, ConfigError> {
        let figment = secrets::from_files(sources.merged()?)?;
        let config: Config = figment.extract().map_err(|error| bad_value(&figment, &error))?;
        let config = config.with_password(&figment)?;
        needs.are_there(&config)?;
        match config.clash().or_else(|| needs.misfit(&config)) {
            Some((key, why)) => Err(told(&figment, key, &why)),
            None => Ok(config),
        }
    }

    /// Values that are good by themselves and not beside each other: the key, and what is wrong with it.
    fn clash(&self) -> Option<(&'static str, String)> {
        if self.http.listen == self.admin.listen && self.http.listen.0.port() != 0 {
            return Some((
                "http.listen",
                format!("is admin.listen too ({}); give them two ports", self.admin.listen.0),
            ));
        }
        if self.http.url_bytes.get() >= self.http.head_bytes.get() {
            let why = format!("is not more than http.url_bytes ({}), and holds it", self.http.url_bytes.get());
            return Some(("http.head_bytes", why));
        }
        let topics = &self.topics;
        if topics.usage == topics.assignments {
            return Some(("topics.assignments", "is topics.usage too; give them two topics".to_owned()));
        }
        if topics.alerts == topics.usage || topics.alerts == topics.assignments {
            return Some(("topics.alerts", "is an input topic too; give it one of its own".to_owned()));
        }
        let (url, read_url) = (self.store.url.as_ref()?, self.store.read_url.as_ref()?);
        let same = match url.kind() {
            StoreKind::Sqlite => url == read_url,
            StoreKind::Postgres => read_url.kind() == StoreKind::Postgres,
        };
        (!same).then(|| ("store.read_url", format!("is no replica of store.url ({url}); leave it away")))
    }

    /// Where the store is.
    pub fn store_url(&self) -> Result<&StoreUrl, ConfigError> {
        self.store.url.as_ref().ok_or_else(|| ConfigError::missing("store.url", ""))
    }

    /// Where the reader reads.
    pub fn read_url(&self) -> Result<&StoreUrl, ConfigError> {
        self.store.read_url.as_ref().map_or_else(|| self.store_url(), Ok)
    }

    /// Where Kafka is.
    pub fn bootstrap_servers(&self) -> Result<&Servers, ConfigError> {
        self.kafka.bootstrap_servers.as_ref().ok_or_else(|| ConfigError::missing("kafka.bootstrap_servers", ""))
    }

    /// What tokens are signed with.
    pub fn hs256_secret(&self) -> Result<&Secret, ConfigError> {
        let why = ", and a token is signed with it";
        self.auth.hs256_secret.as_ref().ok_or_else(|| ConfigError::missing("auth.hs256_secret", why))
    }

    /// Everything as it is in effect, as TOML that can be read again once the secrets are put back.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let shown = self.without_what_files_hold();
        toml_edit::ser::to_string_pretty(&shown).map_err(|error| ConfigError::new(error.to_string()))
    }
}

/// A fault of one value, as it was found while reading.
fn bad_value(figment: &Figment, error: &figment::Error) -> ConfigError {
    let wants = match &error.kind {
        Kind::Message(message) => message.clone(),
        Kind::UnknownVariant(_, names) => format!("wants \"{}\"", names.join("\" or \"")),
        Kind::InvalidType(_, wanted) | Kind::InvalidValue(_, wanted) => match wanted.as_str() {
            "a string" => "wants text".to_owned(),
            "a map" => "wants a table".to_owned(),
            _ => format!("wants {wanted}"),
        },
        other => other.to_string(),
    };
    told(figment, &error.path.join("."), &wants)
}

/// One line about a key: its value and where that came from, if it was set, and what is wrong with it.
fn told(figment: &Figment, key: &str, why: &str) -> ConfigError {
    let Some(value) = lookup(figment, key) else {
        return ConfigError::new(format!("{key} {why}"));
    };
    let source = figment.get_metadata(value.tag()).map_or("unknown", |metadata| metadata.name.as_ref());
    let shown = if secrets::is_of_a_file(figment, key) { values::REDACTED.to_owned() } else { shown(key, &value) };
    ConfigError::new(format!("{key} = {shown} ({source}): {why}"))
}

/// The value of a key, if it was set.
fn lookup(figment: &Figment, key: &str) -> Option<Value> {
    match keys::property(key) {
        Some(name) => figment.find_value(keys::PROPERTIES).ok()?.as_dict()?.get(name).cloned(),
        None => figment.find_value(key).ok(),
    }
}

/// A value as it may be shown.
fn shown(key: &str, value: &Value) -> String {
    let redacted = || values::REDACTED.to_owned();
    let is_file = secrets::secret_of(key).is_some();
    if key == "auth.hs256_secret" || (key.starts_with(keys::PROPERTIES) && !is_file) {
        return redacted();
    }
    match value.as_str() {
        Some(text) if key.ends_with("url") => format!("\"{}\"", url::redacted(text).escape_debug()),
        None if key.ends_with("url") => redacted(),
        Some(text) => format!("\"{}\"", text.escape_debug()),
        None => serde_json::to_string(value).unwrap_or_else(|_| redacted()),
    }
}
