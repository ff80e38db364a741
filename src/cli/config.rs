//! `headroom config`: what is in effect, and whether it is good.

use std::path::PathBuf;

use headroom::config::{Needs, Role};
use headroom::service::{keys, store_options, stream_options};

use super::Failure;
use super::output::print;
use super::run::RoleFlag;
use super::settings::{Addresses, Settings};

/// What can be done with it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Check it for these roles, and print it as TOML without its secrets
    Check(Args),
}

/// What the check takes: all that `run` takes, so that the same words give the same answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    roles: RoleFlag,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    settings: Settings,
}

/// Prints the config that `run` would use.
pub(super) fn run(Command::Check(args): Command, file: Option<PathBuf>) -> Result<(), Failure> {
    let needs = Needs::Roles(args.roles.roles());
    let config = args.settings.load_over(file, args.addresses.into_keys(), needs)?;
    // What `run` tells of these before it connects.
    store_options(&config)?;
    if args.roles.roles().has(Role::Worker) || args.roles.roles().has(Role::Relay) {
        stream_options(&config)?;
    }
    if args.roles.roles().has(Role::Reader) {
        keys(&config)?;
    }
    print(&config.to_toml()?)?;
    // A comment, so that all of it is TOML.
    print("\n# ok")?;
    Ok(())
}
