//! The flags that set keys of the config, over the file and the environment.

use std::path::PathBuf;

use headroom::config::{Config, Needs, Sources};

use super::Failure;

/// Flags of every command that reads the config.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Settings {
    /// Set a key of the config, such as `kafka.group=billing`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl Settings {
    /// The config that is in effect.
    pub(super) fn load(self, file: Option<PathBuf>, needs: Needs) -> Result<Config, Failure> {
        self.load_over(file, Vec::new(), needs)
    }

    /// The same with flags that have a key of their own.
    pub(super) fn load_over(
        self,
        file: Option<PathBuf>,
        own: Vec<(&'static str, String, String)>,
        needs: Needs,
    ) -> Result<Config, Failure> {
        let set = self.set.into_iter().map(|(key, value)| ("--set", key, value));
        Ok(Config::load(&Sources::of_process(file, set.chain(own).collect()), needs)?)
    }
}

/// Flags for the two addresses that are listened on.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Addresses {
    /// Where the query is answered (http.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where metrics and health are told (admin.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
}

impl Addresses {
    /// The keys that they set.
    pub(super) fn into_keys(self) -> Vec<(&'static str, String, String)> {
        let query = self.listen.map(|address| ("--listen", "http.listen".to_owned(), address));
        let admin = self.admin_listen.map(|address| ("--admin-listen", "admin.listen".to_owned(), address));
        query.into_iter().chain(admin).collect()
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("wants KEY=VALUE, such as kafka.group=billing")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
