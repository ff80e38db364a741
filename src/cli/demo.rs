//! `headroom demo`: everything in one process, with its own broker and store.

use std::path::PathBuf;

use headroom::config::{Needs, Span};
use headroom::demo::Demo;
use headroom::telemetry::{logging, metrics};

use super::output::print;
use super::runtime::{block_on, stop_signal};
use super::settings::{Addresses, Settings};
use super::{Failure, token};

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
    let demo = Demo::new(config, args.input.as_deref()).map_err(anyhow::Error::from)?;
    logging::init(&demo.config().log)?;
    let handle = metrics::install().map_err(anyhow::Error::from)?;
    let token = token::of_demo(demo.config())?;
    let duration = args.duration.map(Span::duration);
    let played = block_on(async {
        let stop = stop_signal()?;
        let say = |line: &str| print(line).map_err(|error| format!("{error:#}"));
        demo.play(duration, &token, handle, stop, &say).await.map_err(anyhow::Error::from)
    })?;
    Ok(played?)
}

/// A length of time on the command line.
pub(super) fn span(text: &str) -> Result<Span, &'static str> {
    Span::try_from(text.to_owned())
}
