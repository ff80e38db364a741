//! `headroom migrate`: the store's schema.

use std::path::PathBuf;

use headroom::config::Needs;
use headroom::service::store_options;
use headroom::store;

use super::Failure;
use super::runtime::block_on;
use super::settings::Settings;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Brings the schema up to this program's.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    let migrated = block_on(async { store::connect(&options)?.migrate().await })?;
    Ok(migrated.map_err(anyhow::Error::from)?)
}
