//! What a command cannot do without.

use super::{Config, ConfigError, Role, Roles, StoreKind};

/// What a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the demo brings everything itself.
    Nothing,
    /// The store.
    Store,
    /// Kafka.
    Kafka,
    /// The secret that tokens are signed with.
    TokenSecret,
    /// All that these roles use.
    Roles(Roles),
}

impl Needs {
    /// That everything needed is there.
    pub(super) fn are_there(self, config: &Config) -> Result<(), ConfigError> {
        match self {
            Needs::Nothing => Ok(()),
            Needs::Store => config.store_url().map(drop),
            Needs::Kafka => config.bootstrap_servers().map(drop),
            Needs::TokenSecret => config.hs256_secret().map(drop),
            Needs::Roles(roles) => {
                config.store_url()?;
                if roles.has(Role::Worker) || roles.has(Role::Relay) {
                    config.bootstrap_servers()?;
                }
                let auth = &config.auth;
                let any_key = auth.hs256_secret.is_some() || auth.jwks_file.is_some() || auth.jwks_url.is_some();
                if roles.has(Role::Reader) && !any_key {
                    let why = ", and the reader role needs it (or auth.jwks_file) to check tokens";
                    return Err(ConfigError::missing("auth.hs256_secret", why));
                }
                Ok(())
            }
        }
    }

    /// A value that is good in general and not for this: its key, and what is wrong with it.
    pub(super) fn misfit(self, config: &Config) -> Option<(&'static str, String)> {
        let Needs::Roles(roles) = self else { return None };
        let sqlite = config.store.url.as_ref().is_some_and(|url| url.kind() == StoreKind::Sqlite);
        if sqlite && roles != Roles::ALL {
            let why = format!(
                "SQLite is for one process with all roles ({}), and this one is {roles}; use postgres://",
                Roles::ALL
            );
            return Some(("store.url", why));
        }
        let auth = &config.auth;
        if roles.has(Role::Reader) && auth.hs256_secret.is_none() && auth.jwks_file.is_none() {
            let why = "is not yet supported; set auth.hs256_secret or auth.jwks_file".to_owned();
            return auth.jwks_url.is_some().then_some(("auth.jwks_url", why));
        }
        None
    }
}
