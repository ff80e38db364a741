//! `headroom progress accept-gap`: a partition goes on at the first record that its topic has, though others are gone.
//!
//! What is read a second time changes nothing, so the first record is never too early. The store's row is changed only if
//! its epoch is still the one that was looked at, and gets a new one, so that whoever owns the partition takes it anew.

use std::path::PathBuf;

use anyhow::anyhow;
use headroom::config::Needs;
use headroom::store::{AcceptedGap, Gaps, Offsets};
use headroom::stream::Input;

use super::Both;
use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::runtime::block_on;
use crate::cli::settings::Settings;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The topic whose records are gone
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// The partition
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Only say what is gone
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Says what is gone, and lets the partition go on.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let Args { topic, partition, dry_run, settings } = args;
    let config = settings.load(file, Needs::StoreAndKafka)?;
    block_on(async {
        let both = Both::open(&config)?;
        let inputs = [Input::Usage, Input::Assignments];
        let Some(input) = inputs.into_iter().find(|input| both.options.topic(*input) == topic) else {
            let known = inputs.map(|input| both.options.topic(input)).join(" and ");
            return Err(Failure::Use(format!("--topic {topic}: the input topics are {known}")));
        };
        let rows = both.rows().await?;
        let Some(row) = rows.iter().find(|row| row.progress.partition == partition) else {
            return Err(Failure::Use(format!("--partition {partition}: there are {}, from 0 on", rows.len())));
        };
        let Some((first, _)) = row.held else {
            let line = format!(
                "topic {topic}, partition {partition}: it, or the other input's, has no leader, so nobody can tell what it \
                 holds; try again once it has one"
            );
            return Err(Failure::Failed(anyhow!(line)));
        };
        let (position, noted) = both.position(row, input);
        if !noted && !position.is_real() {
            let next = position.next;
            return Ok(print(&format!(
                "topic {topic}, partition {partition} has no gap: it goes on at offset {next}"
            ))?);
        }
        let progress = &row.progress;
        let (offsets, gaps) = match input {
            Input::Usage => {
                (Offsets { usage: first.usage, ..progress.offsets }, Gaps { usage: false, ..progress.gaps })
            }
            Input::Assignments => (
                Offsets { assignments: first.assignments, ..progress.offsets },
                Gaps { assignments: false, ..progress.gaps },
            ),
        };
        let next = match input {
            Input::Usage => offsets.usage,
            Input::Assignments => offsets.assignments,
        };
        if dry_run {
            return Ok(print(&format!("{position}; it would go on at {next}. Nothing was done"))?);
        }
        let accepted =
            AcceptedGap { partition, epoch: progress.epoch, seen: progress.offsets, offsets, gaps, topic, next };
        if !both.store.accept_gap(&accepted).await.map_err(anyhow::Error::from)? {
            let line = format!(
                "partition {partition} was taken by a worker or moved just now, so nothing was done; try again"
            );
            return Err(Failure::Failed(anyhow!(line)));
        }
        Ok(print(&format!("{position}; accepted: it goes on at {next}"))?)
    })?
}
