//! `headroom progress`: where each partition goes on, and how one goes on whose position is gone.

mod accept_gap;
mod show;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use headroom::config::Config;
use headroom::service::{store_options, stream_options};
use headroom::store::{self, Offsets, Progress, Store};
use headroom::stream::{Ends, Gap, Input, Options, Told};

use super::Failure;

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show where each partition goes on, and what its topics hold
    Show(show::Args),
    /// Let a partition go on whose position its topic does not have
    AcceptGap(accept_gap::Args),
}

/// Does it.
pub(super) fn run(command: Command, file: Option<PathBuf>) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show::run(args, file),
        Command::AcceptGap(args) => accept_gap::run(args, file),
    }
}

/// Store and Kafka, side by side.
struct Both {
    store: Arc<dyn Store>,
    options: Options,
}

/// A partition pair as the store and its topics have it.
struct Row {
    progress: Progress,
    /// The first offsets that are there, and those after the last ones; `None` while one of the two has no leader.
    held: Option<(Offsets, Offsets)>,
}

impl Both {
    fn open(config: &Config) -> Result<Both, Failure> {
        let store = store::connect(&store_options(config)?).map_err(anyhow::Error::from)?;
        Ok(Both { store, options: stream_options(config)? })
    }

    /// All partition pairs; empty before a worker has begun with the store.
    async fn rows(&self) -> Result<Vec<Row>, Failure> {
        let progress = self.store.progress().await.map_err(anyhow::Error::from)?;
        let partitions: Vec<i32> = progress.iter().map(|one| one.partition).collect();
        let asked = tokio::task::block_in_place(|| {
            let ends = Ends::new(&self.options)?;
            Ok::<_, headroom::stream::StreamError>((ends.begins(&partitions)?, ends.of(&partitions)?))
        });
        let (firsts, ends) = asked.map_err(anyhow::Error::from)?;
        let of = |told: &Told, partition: i32| {
            let start = told.starts.iter().find(|start| start.partition == partition)?;
            Some(Offsets { usage: start.usage, assignments: start.assignments })
        };
        let row = |progress: Progress| {
            let partition = progress.partition;
            Row { progress, held: of(&firsts, partition).zip(of(&ends, partition)) }
        };
        Ok(progress.into_iter().map(row).collect())
    }

    /// The position of an input, held against what the topic holds; whether the store notes it as a gap.
    fn position(&self, row: &Row, input: Input) -> (Gap, bool) {
        let (of, noted): (fn(&Offsets) -> i64, bool) = match input {
            Input::Usage => (|offsets| offsets.usage, row.progress.gaps.usage),
            Input::Assignments => (|offsets| offsets.assignments, row.progress.gaps.assignments),
        };
        let gap = Gap {
            input,
            topic: self.options.topic(input).to_owned(),
            partition: row.progress.partition,
            next: of(&row.progress.offsets),
            held: row.held.as_ref().map(|(first, end)| (of(first), of(end))),
        };
        (gap, noted)
    }
}
