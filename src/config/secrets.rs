//! Secrets that lie in files: beside each key that holds one stands another, with `_file`, that names the file.
//!
//! A file's text takes the key's place before anything is checked, so that the same rules hold for it. It is never shown.

use figment::Figment;
use figment::value::{Dict, Value};

use super::sources::Layer;
use super::{Config, ConfigError, keys, lookup, told};

/// What a key that names a file ends with.
pub(super) const SUFFIX: &str = "_file";
/// The keys that hold secrets, librdkafka's aside; `auth.jwks_file` is none, its keys are public.
const SECRETS: [&str; 4] = ["store.url", "store.read_url", "auth.hs256_secret", "auth.jwks_url"];
/// The password alone, for both addresses of the store.
pub(super) const PASSWORD: &str = "store.password_file";
/// The most bytes of a secret: far more than any, and no file that was named by mistake.
const MOST_BYTES: u64 = 1024 * 1024;

/// The key of the secret that a key names the file of.
pub(super) fn secret_of(file_key: &str) -> Option<&str> {
    let key = file_key.strip_suffix(SUFFIX)?;
    (SECRETS.contains(&key) || keys::property(key).is_some()).then_some(key)
}

/// Whether the value of this key came from a file.
pub(super) fn is_of_a_file(figment: &Figment, key: &str) -> bool {
    secret_of(&format!("{key}{SUFFIX}")).is_some() && lookup(figment, &format!("{key}{SUFFIX}")).is_some()
}

/// Puts what the files hold in the places of their keys.
pub(super) fn from_files(mut figment: Figment) -> Result<Figment, ConfigError> {
    let properties = figment.find_value(keys::PROPERTIES).ok();
    let properties = properties.as_ref().and_then(Value::as_dict).into_iter().flat_map(Dict::keys);
    let names = SECRETS.map(|key| format!("{key}{SUFFIX}")).into_iter();
    let names = names.chain(properties.map(|name| format!("{}.{name}", keys::PROPERTIES))).collect::<Vec<_>>();
    for file_key in &names {
        let Some(key) = secret_of(file_key) else { continue };
        // A value of another kind is refused when the config is made of the values.
        let Some(path) = lookup(&figment, file_key).and_then(Value::into_string) else { continue };
        if lookup(&figment, key).is_some() {
            return Err(told(&figment, file_key, &format!("stands beside {key}; set one of the two")));
        }
        let secret = read(&path).map_err(|why| told(&figment, file_key, &why))?;
        figment = figment.merge(Layer::of_text(format!("file {path} of {file_key}"), key, &secret)?);
    }
    Ok(figment)
}

impl Config {
    /// Puts the password that a file holds into the addresses of the store.
    pub(super) fn with_password(mut self, figment: &Figment) -> Result<Config, ConfigError> {
        let Some(path) = self.store.password_file.as_deref() else { return Ok(self) };
        let secret = read(path).map_err(|why| told(figment, PASSWORD, &why))?;
        for (key, url) in [("store.url", &mut self.store.url), ("store.read_url", &mut self.store.read_url)] {
            let Some(url) = url else { continue };
            url.set_password(&secret).map_err(|why| told(figment, PASSWORD, &format!("{key} {why}")))?;
        }
        Ok(self)
    }

    /// The config with the names of files, and without what was read from them.
    pub(super) fn without_what_files_hold(&self) -> Config {
        let mut config = self.clone();
        let (store, auth) = (&mut config.store, &mut config.auth);
        store.url.take_if(|_| store.url_file.is_some());
        store.read_url.take_if(|_| store.read_url_file.is_some());
        auth.hs256_secret.take_if(|_| auth.hs256_secret_file.is_some());
        auth.jwks_url.take_if(|_| auth.jwks_url_file.is_some());
        config
    }
}

/// The text of a file without the line end that editors leave.
fn read(path: &str) -> Result<String, String> {
    let whole = || -> std::io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = whole().map_err(|error| format!("the file cannot be read: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES) {
        return Err(format!("the file has more than {MOST_BYTES} bytes and is no secret"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "the file is no UTF-8".to_owned())?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() { Err("the file is empty".to_owned()) } else { Ok(secret.to_owned()) }
}
