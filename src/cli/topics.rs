//! `headroom topics`: the topics that are missing.

use std::path::PathBuf;

use clap::value_parser;
use headroom::config::{Needs, Span};
use headroom::service::stream_options;
use headroom::stream::topics::{self, Shape};

use super::Failure;
use super::demo::span;
use super::output::print;
use super::runtime::block_on;
use super::settings::Settings;

/// What can be done with them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create those of the three topics that are missing
    Create(Args),
}

/// How they are made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Partitions of each input topic; never to be changed, so take many (64, say)
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    partitions: i32,
    /// Partitions of the alerts topic; as many as the inputs have when left away
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    alerts_partitions: Option<i32>,
    /// Copies of each partition; the broker's own default when left away
    #[arg(long, value_name = "N", value_parser = value_parser!(i16).range(1..))]
    replication: Option<i16>,
    /// How long records are kept; for ever when left away, since old records are judged by their own time
    #[arg(long, value_name = "TIME", value_parser = span)]
    retention: Option<Span>,
    #[command(flatten)]
    settings: Settings,
}

/// Makes what is missing.
pub(super) fn run(Command::Create(mut args): Command, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = std::mem::take(&mut args.settings).load(file, Needs::Kafka)?;
    let options = stream_options(&config)?;
    let created = block_on(topics::create(&options, &shape(&args)))?.map_err(anyhow::Error::from)?;
    for topic in &created.made {
        print(&format!("{topic}: made"))?;
    }
    for (topic, partitions) in &created.there {
        print(&format!("{topic}: was there, with {partitions} partitions"))?;
    }
    Ok(())
}

fn shape(args: &Args) -> Shape {
    Shape {
        partitions: args.partitions,
        alerts_partitions: args.alerts_partitions.unwrap_or(args.partitions),
        replication: args.replication.map_or(BROKER_DEFAULT, i32::from),
        retention: args.retention.map(Span::duration),
    }
}

/// What Kafka takes for "as many copies as the broker is set to make".
const BROKER_DEFAULT: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    fn args(alerts_partitions: Option<i32>, retention: Option<&str>) -> Args {
        let retention = retention.map(|text| span(text).expect("a time"));
        Args { partitions: 8, alerts_partitions, replication: Some(3), retention, settings: Settings::default() }
    }

    #[test]
    fn records_are_kept_for_ever_unless_told() {
        let kept = shape(&args(None, None));
        assert_eq!(kept, Shape { partitions: 8, alerts_partitions: 8, replication: 3, retention: None });
        let shorter = shape(&args(Some(2), Some("400d")));
        assert_eq!((shorter.alerts_partitions, shorter.retention.map(|r| r.as_secs())), (2, Some(34_560_000)));
    }
}
