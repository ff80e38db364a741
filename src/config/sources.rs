//! Where values come from: the file, over it the environment, over it flags. Each becomes a layer that knows its name,
//! and every key of it is known before it gets that far.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml_edit::{DocumentMut, TableLike};

use super::ConfigError;
use super::keys::{self, Form, Known, PROPERTIES};

/// The variable that names the file, where no flag does.
const FILE_VARIABLE: &str = "HEADROOM_CONFIG";
/// What a variable that sets a key begins with.
const PREFIX: &str = "HEADROOM_";
/// Variables of the tests, the benchmarks and the scripts around them.
const NOT_KEYS: [&str; 3] = [FILE_VARIABLE, "HEADROOM_BIN", "HEADROOM_REPO"];
/// How further such variables begin.
const NOT_KEYS_PREFIXES: [&str; 2] = ["HEADROOM_TEST_", "HEADROOM_BENCH_"];

/// Where values come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are of no interest.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: the flag as it is called, the key and the value. The last one holds.
    pub flags: Vec<(&'static str, String, String)>,
}

impl Sources {
    /// The process's own environment, with the file that a flag or [`FILE_VARIABLE`] names.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String, String)>) -> Sources {
        let file = file.or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
        Sources { file, environment: std::env::vars_os().collect(), flags }
    }

    /// All layers, one over the other.
    pub(super) fn merged(&self) -> Result<Figment, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = &self.file {
            figment = figment.merge(Layer::of_file(path)?);
        }
        let mut environment: Vec<_> = self.environment.iter().collect();
        environment.sort();
        for (name, value) in environment {
            if let Some(layer) = Layer::of_variable(name, value)? {
                figment = figment.merge(layer);
            }
        }
        for (flag, key, value) in &self.flags {
            figment = figment.merge(Layer::of_text((*flag).to_owned(), key, value)?);
        }
        Ok(figment)
    }
}

/// Values of one source.
pub(super) struct Layer {
    source: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    fn of_file(path: &Path) -> Result<Layer, ConfigError> {
        let source = format!("file {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::new(format!("{source}: {error}")))?;
        // The parser's own rendering quotes the line, which may hold a secret.
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let message = error.message().replace('\n', ", ");
            ConfigError::new(format!("{source}, line {line}: no good TOML: {message}"))
        })?;
        let values = section("", document.as_table(), &source)?;
        Ok(Layer { source, values })
    }

    fn of_variable(name: &OsString, value: &OsString) -> Result<Option<Layer>, ConfigError> {
        // A name that is no text cannot be a key; what it begins with does not matter.
        let Some(name) = name.to_str() else { return Ok(None) };
        let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
        if NOT_KEYS.contains(&name) || NOT_KEYS_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(None);
        }
        let mut key = rest.to_ascii_lowercase().replace("__", ".");
        // librdkafka's names have dots and no underscores, a variable's the other way round.
        if let Some(property) = keys::property(&key) {
            key = format!("{PROPERTIES}.{}", keys::property_of_variable(property));
        }
        let source = format!("environment variable {name}");
        match value.to_str() {
            Some(value) => Layer::of_text(source, &key, value).map(Some),
            None => Err(ConfigError::new(format!("{key} ({source}): wants UTF-8"))),
        }
    }

    /// One key's value, written as text.
    pub(super) fn of_text(source: String, key: &str, text: &str) -> Result<Layer, ConfigError> {
        let as_text = || Value::from(text);
        let value = if let Some(property) = keys::property(key) {
            Dict::from([(property.to_owned(), as_text())]).into()
        } else {
            match keys::find(key) {
                Some(Known::Key(Form::Text)) => as_text(),
                // What is no TOML stays text, and the key says what it wants instead.
                Some(Known::Key(Form::Toml)) => match text.trim().parse::<toml_edit::Value>() {
                    Ok(toml) if key == PROPERTIES => properties(&toml),
                    Ok(toml) => value(&toml),
                    Err(_) => as_text(),
                },
                Some(Known::Section) | None => return Err(unknown(key, &source)),
            }
        };
        let path = keys::property(key).map_or(key, |_| PROPERTIES);
        Ok(Layer { source, values: nested(path, value) })
    }
}

/// A value below the tables that its dotted name asks for.
fn nested(path: &str, value: Value) -> Dict {
    match path.split_once('.') {
        Some((section, rest)) => Dict::from([(section.to_owned(), nested(rest, value).into())]),
        None => Dict::from([(path.to_owned(), value)]),
    }
}

fn unknown(key: &str, source: &str) -> ConfigError {
    ConfigError::new(format!("unknown key \"{}\" ({source}); there are: {}", key.escape_debug(), keys::beside(key)))
}

/// The values of a table of the file, all of whose keys are known.
fn section(path: &str, table: &dyn TableLike, source: &str) -> Result<Dict, ConfigError> {
    let mut values = Dict::new();
    for (name, item) in table.iter() {
        let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        // A name that holds a dot itself is no way to a key.
        let known = if name.contains('.') { None } else { keys::find(&key) };
        let value = match (known, item.as_table_like()) {
            (None, _) => return Err(unknown(&key, source)),
            (Some(Known::Section), Some(table)) => section(&key, table, source)?.into(),
            (Some(Known::Section), None) => {
                return Err(ConfigError::new(format!("{key} ({source}): wants a table of keys")));
            }
            (Some(Known::Key(_)), _) => match item.clone().into_value() {
                Ok(toml) if key == PROPERTIES => properties(&toml),
                Ok(toml) => value(&toml),
                Err(_) => continue,
            },
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

/// A TOML value as it stands. Numbers with a point stay text: no key wants a binary fraction, and thresholds must not be
/// rounded to one.
fn value(toml: &toml_edit::Value) -> Value {
    match toml {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(flag) => Value::from(*flag.value()),
        toml_edit::Value::Float(number) => {
            let written = number.display_repr().replace('_', "");
            Value::from(written.strip_prefix('+').unwrap_or(&written))
        }
        toml_edit::Value::Datetime(at) => Value::from(at.value().to_string()),
        toml_edit::Value::Array(list) => Value::from(list.iter().map(value).collect::<Vec<_>>()),
        toml_edit::Value::InlineTable(table) => {
            let entries = table.iter().map(|(name, entry)| (name.to_owned(), value(entry)));
            Value::from(entries.collect::<Dict>())
        }
    }
}

/// librdkafka's properties: `sasl.username = "x"` is the property `sasl.username`, quoted or not, and numbers and flags
/// are the text they are written as.
fn properties(toml: &toml_edit::Value) -> Value {
    fn flatten(prefix: &str, table: &toml_edit::InlineTable, into: &mut Dict) {
        for (name, entry) in table.iter() {
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            match entry {
                toml_edit::Value::InlineTable(table) => flatten(&name, table, into),
                toml_edit::Value::Integer(number) => {
                    into.insert(name, Value::from(number.value().to_string()));
                }
                toml_edit::Value::Boolean(flag) => {
                    into.insert(name, Value::from(flag.value().to_string()));
                }
                other => {
                    into.insert(name, value(other));
                }
            }
        }
    }
    match toml {
        toml_edit::Value::InlineTable(table) => {
            let mut flat = Dict::new();
            flatten("", table, &mut flat);
            flat.into()
        }
        other => value(other),
    }
}
