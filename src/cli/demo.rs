//! `headroom demo`: everything in one process, with its own broker and store.

use std::path::PathBuf;

use headroom::config::{Config, Needs, Span};

use super::Failure;
use super::settings::{Addresses, Settings};

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after this time, with a summary
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    duration: Option<Span>,
    /// Play these events instead: lines of {"key", "value", "timestamp"}
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    settings: Settings,
}

/// Plays until it is told to end, or the time is over.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load_over(file, args.addresses.into_keys(), Needs::Nothing)?;
    play(&config, args.duration, args.input)
}

/// The demo itself.
fn play(_config: &Config, _duration: Option<Span>, _input: Option<PathBuf>) -> Result<(), Failure> {
    Err(anyhow::anyhow!("demo: not built into this program yet").into())
}

/// A length of time on the command line.
pub(super) fn span(text: &str) -> Result<Span, &'static str> {
    Span::try_from(text.to_owned())
}
