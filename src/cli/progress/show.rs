//! `headroom progress show`: a line for each topic and partition.

use std::path::PathBuf;

use headroom::config::Needs;
use headroom::stream::{Gap, Input};

use super::Both;
use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::runtime::block_on;
use crate::cli::settings::Settings;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Prints the lines, and what is wrong with a position below its own.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::StoreAndKafka)?;
    block_on(async {
        let both = Both::open(&config)?;
        let rows = both.rows().await?;
        if rows.is_empty() {
            return Ok(print("no worker has begun with this store")?);
        }
        for row in &rows {
            for input in [Input::Usage, Input::Assignments] {
                let (position, noted) = both.position(row, input);
                print(&line(&position))?;
                if noted || (row.held.is_some() && position.is_real()) {
                    print(&format!("  {position}; `{}` lets it go on", position.way_out()))?;
                }
            }
        }
        Ok(())
    })?
}

fn line(position: &Gap) -> String {
    let Gap { topic, partition, next, held, .. } = position;
    let Some((first, end)) = *held else {
        return format!(
            "{topic} {partition}: next {next}; what it holds nobody can tell: it or its twin has no leader"
        );
    };
    let waiting = (end - (*next).max(first)).max(0);
    format!("{topic} {partition}: next {next}, first {first}, end {end}, waiting {waiting}")
}
