//! `headroom run`: the service.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use headroom::config::{Config, Needs, Role, Roles};
use headroom::service::{Service, store_options, stream_options};
use headroom::store;
use headroom::telemetry::{logging, metrics};

use super::Failure;
use super::runtime::{block_on, stop_signal};
use super::settings::{Addresses, Settings};

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    roles: RoleFlag,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    settings: Settings,
}

/// Which roles.
#[derive(Debug, clap::Args)]
pub(super) struct RoleFlag {
    /// The roles of this process, with commas between; all when left away
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', value_parser = role())]
    named: Vec<Role>,
}

impl RoleFlag {
    /// The roles that are meant.
    pub(super) fn roles(&self) -> Roles {
        if self.named.is_empty() { Roles::ALL } else { Roles::of(&self.named) }
    }
}

/// A role by its name.
fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name))
        .try_map(|name| Role::ALL.into_iter().find(|role| role.name() == name).ok_or("is no role"))
}

/// Runs until it is told to end.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let roles = args.roles.roles();
    let config = args.settings.load_over(file, args.addresses.into_keys(), Needs::Roles(roles))?;
    logging::init(&config.log)?;
    let handle = metrics::install().map_err(anyhow::Error::from)?;
    metrics::register(roles, &config.topics);
    block_on(serve(config, roles, handle))?
}

/// The roles, side by side, until a signal or a failure ends them.
async fn serve(config: Config, roles: Roles, handle: metrics::PrometheusHandle) -> Result<(), Failure> {
    let mut stop = stop_signal()?;
    let store = store::connect(&store_options(&config)?).map_err(anyhow::Error::from)?;
    let on_kafka = roles.has(Role::Worker) || roles.has(Role::Relay);
    let stream = if on_kafka { Some(stream_options(&config)?) } else { None };
    let service = tokio::select! {
        prepared = Service::prepare(config, roles, store, stream) => prepared.map_err(anyhow::Error::from)?,
        // A store that hangs, say; nothing has begun.
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    Ok(service.run(handle, stop).await.map_err(anyhow::Error::from)?)
}
