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
    /// Store and Kafka.
    StoreAndKafka,
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
            Needs::StoreAndKafka => config.store_url().and(config.bootstrap_servers().map(drop)),
            Needs::TokenSecret => config.hs256_secret().map(drop),
            Needs::Roles(roles) => {
                config.store_url()?;
                if roles.has(Role::Worker) || roles.has(Role::Relay) {
                    config.bootstrap_servers()?;
                }
                if roles.has(Role::Reader) && config.auth.keys().is_empty() {
                    let why = ", and the reader role needs it (or auth.jwks_file, or auth.jwks_url) to check tokens";
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
        let keys = config.auth.keys();
        if roles.has(Role::Reader) && keys.len() > 1 {
            let others = keys[1..].join(" and ");
            return Some((
                keys[0],
                format!("stands beside {others}; tokens are checked by one of them, take out the rest"),
            ));
        }
        None
    }
}
