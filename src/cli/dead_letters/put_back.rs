//! `headroom dead-letters put-back`: refused records on their topic again.
//!
//! A record is marked only after all copies acknowledged it, so one that is cut off in between is sent again the next
//! time; whatever is known already is a duplicate then and changes nothing.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use headroom::config::{Config, Needs};
use headroom::service::{store_options, stream_options};
use headroom::store::{self, LetterPage, LetterSelection, Place, Settled, Store, WholeLetter};
use headroom::stream::sender::{Sender, Whole};

use super::filter::Filter;
use crate::cli::Failure;
use crate::cli::output::print;
use crate::cli::runtime::block_on;
use crate::cli::settings::Settings;

/// Dead letters listed at once, and bytes of values sent at once; one value may pass it.
const LISTED: u32 = 500;
const BYTES: usize = 16 << 20;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Those that were put back before, too
    #[arg(long)]
    again: bool,
    /// Do it; without this it only says how many there are
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Says how many there are, and with `--yes` puts them back.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::Store)?;
    let selection = args.filter.selection(None);
    block_on(put_back(&config, selection, args.again, args.yes))?
}

async fn put_back(config: &Config, selection: LetterSelection, again: bool, yes: bool) -> Result<(), Failure> {
    let store = store::connect(&store_options(config)?).map_err(anyhow::Error::from)?;
    let settled = store.deployment().await.map_err(anyhow::Error::from)?.settled;
    let settled = settled.ok_or_else(|| anyhow!("no worker has begun with this store, so it has no dead letters"))?;
    let meant = LetterSelection { put_back: (!again).then_some(false), ..selection.clone() };
    let count = store.count_dead_letters(&meant).await.map_err(anyhow::Error::from)?;
    let mut line = format!("{count} dead letters to put back");
    if !again {
        let before = LetterSelection { put_back: Some(true), ..selection };
        let before = store.count_dead_letters(&before).await.map_err(anyhow::Error::from)?;
        if before > 0 {
            line.push_str(&format!("; {before} were put back before and are skipped (--again takes them too)"));
        }
    }
    if !yes && count > 0 {
        line.push_str("; nothing was done: add --yes");
    }
    print(&line)?;
    if !yes || count == 0 {
        return Ok(());
    }
    let options = stream_options(config)?;
    let topics = [options.usage_topic.clone(), options.assignments_topic.clone()];
    let sender = Sender::new(&options).map_err(anyhow::Error::from)?;
    let mut work = Work { store: store.as_ref(), settled, topics, sender, done: 0, left: 0 };
    work.all(&meant).await?;
    print(&format!("{} put back", work.done))?;
    match work.left {
        0 => Ok(()),
        left => Err(Failure::Failed(anyhow!("{left} dead letters could not be put back; the lines above say why"))),
    }
}

struct Work<'a> {
    store: &'a dyn Store,
    settled: Settled,
    topics: [String; 2],
    sender: Sender,
    done: usize,
    left: usize,
}

impl Work<'_> {
    /// Puts all back that were there at the start: those that are refused once more are not looked at again.
    async fn all(&mut self, meant: &LetterSelection) -> Result<(), anyhow::Error> {
        let newest = LetterPage { newest_first: true, after: None, limit: 1 };
        let Some(last) = self.store.list_dead_letters(meant, &newest).await?.pop() else { return Ok(()) };
        let mut after = None;
        loop {
            let page = LetterPage { newest_first: false, after, limit: LISTED };
            let found = self.store.list_dead_letters(meant, &page).await?;
            let mut batch: Vec<(Place, WholeLetter)> = Vec::new();
            let mut bytes = 0;
            let mut at_last = found.is_empty();
            after = found.last().map(|letter| letter.place.clone());
            for listed in found {
                at_last = listed.place == last.place || listed.refused_at > last.refused_at;
                if listed.refused_at <= last.refused_at
                    && let Some(letter) = self.store.dead_letter(&listed.place).await?
                {
                    bytes += letter.row.value.as_ref().map_or(0, Vec::len);
                    batch.push((listed.place, letter));
                }
                if bytes >= BYTES {
                    self.send(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
                if at_last {
                    break;
                }
            }
            self.send(batch).await?;
            if at_last {
                return Ok(());
            }
        }
    }

    /// Sends a batch and marks what was acknowledged.
    async fn send(&mut self, mut batch: Vec<(Place, WholeLetter)>) -> Result<(), anyhow::Error> {
        let count = batch.len();
        batch.retain(|(place, _)| {
            let known = self.topics.iter().any(|topic| topic == place.topic_now());
            if !known {
                let topics = self.topics.join(" and ");
                tell(place, &format!("its topic is none of this config's input topics, {topics}"));
            }
            known
        });
        self.left += count - batch.len();
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let timestamp = i64::try_from(timestamp.as_millis()).context("the clock stands too far ahead")?;
        let records: Vec<Whole<'_>> = batch
            .iter()
            .map(|(place, letter)| Whole {
                topic: place.topic_now(),
                partition: partition(&self.settled, letter),
                key: letter.row.key.as_deref(),
                value: letter.row.value.as_deref(),
                headers: &letter.row.headers,
                timestamp,
            })
            .collect();
        let results = tokio::task::block_in_place(|| self.sender.send(&records));
        let mut acknowledged = Vec::new();
        for ((place, _), result) in batch.iter().zip(results) {
            match result {
                Ok(()) => acknowledged.push(place.clone()),
                Err(why) => {
                    self.left += 1;
                    tell(place, &why);
                }
            }
        }
        self.done += acknowledged.len();
        if !acknowledged.is_empty() {
            let marked = self.store.dead_letters_put_back(&acknowledged).await;
            marked.context(
                "records are on their topic again, but are not marked so; put back once more they do no harm",
            )?;
        }
        Ok(())
    }
}

/// Where a record goes: to the partition of its key, and without one back where it was.
fn partition(settled: &Settled, letter: &WholeLetter) -> i32 {
    let of_key = |key: &Vec<u8>| settled.partitioner.partition(key, settled.partitions);
    letter.row.key.as_ref().map_or(letter.partition, of_key)
}

/// What could not be put back is told beside the answer.
fn tell(place: &Place, why: &str) {
    eprintln!("{place}: {why}");
}
