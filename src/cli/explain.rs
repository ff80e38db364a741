//! `headroom explain`: how a customer's buckets came to what is left in them.
//!
//! The ledger is folded by the worker's own code, page by page, and each event is told as it is folded, so that a large
//! customer needs no more memory than a small one. The buckets come last. Reads only, and one moment of the store.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use headroom::config::Needs;
use headroom::domain::{BucketKey, BucketRow, Calendar, Left, Quantity, Refold, Untouched, Usage, UsageState, packed};
use headroom::service::store_options;
use headroom::store::{self, LedgerRow};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Failure;
use super::output::{print, printable};
use super::runtime::block_on;
use super::settings::Settings;

/// Ledger rows that are read at once.
const PAGE: usize = 5_000;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose buckets
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    customer: i64,
    /// Only this bucket; may be given several times
    #[arg(long, value_name = "LEVEL/ASSIGNMENT/COMPONENT/WINDOWSTART")]
    bucket: Vec<BucketKey>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Folds, and tells.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let Args { customer, bucket, json, settings } = args;
    let config = settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    Ok(block_on(explain(options, customer, bucket, json))??)
}

async fn explain(
    options: store::Options,
    customer: i64,
    only: Vec<BucketKey>,
    json: bool,
) -> Result<(), anyhow::Error> {
    let store = store::connect(&options)?;
    let settled =
        store.deployment().await?.settled.context("store: no worker has run on it yet, so there is nothing")?;
    let calendar = Calendar::new(&settled.time_zone).context("the store's time zone")?;
    let partition = settled.partitioner.partition_of(customer, settled.partitions);
    let mut snapshot = store.snapshot().await?;
    let sources = snapshot.sources(partition).await?;
    let image = snapshot.account(partition, customer).await?;
    let image = image.with_context(|| format!("--customer {customer}: nothing is known of this customer"))?;
    let mut told = Told { fold: Refold::new(image, &calendar), calendar, only, json };
    told.known_buckets()?;
    let mut after = None;
    loop {
        let rows = snapshot.usage_after(partition, customer, after, PAGE).await?;
        for row in &rows {
            let usage = packed::unpack(row.position, &row.body).context("a ledger row of a form that is not known")?;
            told.event(row.state, source_of(&sources, row), &usage)?;
        }
        after = rows.last().map(|row| row.position);
        if rows.len() < PAGE {
            break;
        }
    }
    told.buckets()
}

/// What is told of a customer, and how.
struct Told {
    fold: Refold,
    calendar: Calendar,
    /// The buckets asked for; all when there is none.
    only: Vec<BucketKey>,
    json: bool,
}

impl Told {
    fn wants(&self, bucket: BucketKey) -> bool {
        self.only.is_empty() || self.only.contains(&bucket)
    }

    /// Refuses a bucket asked for that there is not.
    fn known_buckets(&self) -> Result<(), anyhow::Error> {
        let stored = |key: &BucketKey| self.fold.stored().any(|row| row.key() == *key);
        let missing = self.only.iter().find(|key| self.fold.untouched(&self.calendar, **key).is_none() && !stored(key));
        match missing {
            Some(key) => bail!("--bucket {key}: the customer has no such bucket; without --bucket all are told"),
            None => Ok(()),
        }
    }

    /// An event of the ledger: what became of it with the buckets that are wanted.
    fn event(&mut self, state: UsageState, source: &str, usage: &Usage<'_>) -> Result<(), anyhow::Error> {
        let event = Event { source, usage };
        if state != UsageState::Counted {
            self.fold.qualify(&self.calendar, usage);
            if self.only.is_empty() || self.fold.qualified().any(|bucket| self.wants(bucket)) {
                let what = if state == UsageState::Held { What::Held } else { What::Reversed };
                event.tell(self.json, what)?;
            }
            return Ok(());
        }
        let draws = self.fold.fold(&self.calendar, usage).to_vec();
        for draw in draws {
            let row = self.fold.bucket(draw.slot).context("a draw of no bucket")?;
            if self.wants(row.key()) {
                event
                    .tell(self.json, What::Drew { amount: draw.amount, bucket: row.key(), remaining: row.remaining })?;
            }
        }
        for (bucket, amount) in self.fold.turned_away().filter(|(bucket, _)| self.wants(*bucket)) {
            event.tell(self.json, What::TurnedAway { amount, bucket })?;
        }
        let left = self.fold.left();
        let asked = self.only.is_empty() || self.fold.qualified().any(|bucket| self.wants(bucket));
        if asked && !left.is_nothing() {
            event.tell(self.json, What::NotIncluded(left))?;
        }
        Ok(())
    }

    /// The buckets in the end.
    fn buckets(&self) -> Result<(), anyhow::Error> {
        let differences = self.fold.differences();
        for row in self.fold.buckets().filter(|row| self.wants(row.key())) {
            let stored = differences.iter().find(|difference| difference.slot() == row.slot);
            self.tell_bucket(
                row.key(),
                row.by_value,
                Some((row.remaining, row.allowance)),
                stored.map(|of| of.stored),
            )?;
        }
        for difference in differences.iter().filter(|difference| difference.folded.is_none()) {
            let Some(stored) = difference.stored.filter(|row| self.wants(row.key())) else { continue };
            self.tell_bucket(stored.key(), stored.by_value, None, Some(Some(stored)))?;
        }
        // One that nothing drew from is told when it is asked for.
        for key in self.only.iter().filter(|key| self.fold.buckets().all(|row| row.key() != **key)) {
            if let Some(Untouched { by_value, allowance }) = self.fold.untouched(&self.calendar, *key) {
                self.tell_bucket(*key, by_value, Some((allowance, allowance)), None)?;
            }
        }
        Ok(())
    }

    /// A bucket: what is left of what, unless the facts give no such bucket; `stored` is what the store has where that
    /// is something else.
    fn tell_bucket(
        &self,
        key: BucketKey,
        by_value: bool,
        worth: Option<(Quantity, Quantity)>,
        stored: Option<Option<BucketRow>>,
    ) -> Result<(), anyhow::Error> {
        if self.json {
            let line = BucketLine {
                bucket: key.to_string(),
                by_value,
                allowance: worth.map(|(_, allowance)| number(allowance)).transpose()?,
                remaining: worth.map(|(remaining, _)| number(remaining)).transpose()?,
                differs: stored.is_some(),
                stored_allowance: stored.flatten().map(|row| number(row.allowance)).transpose()?,
                stored_remaining: stored.flatten().map(|row| number(row.remaining)).transpose()?,
            };
            return print(&serde_json::to_string(&line)?);
        }
        let is = worth.map_or_else(
            || "no such bucket".to_owned(),
            |(remaining, allowance)| format!("{remaining} of {allowance}"),
        );
        let differs = stored.map(|stored| match stored {
            Some(stored) => {
                format!("; the store has {} of {}: see headroom rebuild", stored.remaining, stored.allowance)
            }
            None => "; the store has no row of it: see headroom rebuild".to_owned(),
        });
        print(&format!("{key}: {is}{}", differs.unwrap_or_default()))
    }
}

/// The source of an event of the ledger.
fn source_of<'a>(sources: &'a [String], row: &'a LedgerRow) -> &'a str {
    let numbered = usize::try_from(row.source).ok().and_then(|number| number.checked_sub(1));
    match numbered {
        Some(at) => sources.get(at).map_or("", String::as_str),
        None => packed::source_behind(&row.body).unwrap_or_default(),
    }
}

/// An event of the ledger.
struct Event<'a> {
    source: &'a str,
    usage: &'a Usage<'a>,
}

/// What became of an event.
enum What {
    /// It was first applied under a closed bill run, and draws nothing until it is let in.
    Held,
    /// It counts no more.
    Reversed,
    /// It took this of a bucket.
    Drew { amount: Quantity, bucket: BucketKey, remaining: Quantity },
    /// It wanted this much more of a bucket, where nothing was left.
    TurnedAway { amount: Quantity, bucket: BucketKey },
    /// This is left of it after all buckets.
    NotIncluded(Left),
}

impl Event<'_> {
    fn tell(&self, json: bool, what: What) -> Result<(), anyhow::Error> {
        let Usage { id, quantity, price, position, .. } = *self.usage;
        let start = position.start;
        if json {
            let (source, start_time) = (self.source, start.to_string());
            let event = Named { source, id, start_time, quantity: number(quantity)?, price: number(price)? };
            return print(&serde_json::to_string(&what.line(event)?)?);
        }
        let priced = |price: Quantity| if price.is_zero() { String::new() } else { format!(" at {price}") };
        let what = match what {
            What::Held => "held".to_owned(),
            What::Reversed => "reversed".to_owned(),
            What::Drew { amount, bucket, remaining } => format!("drew {amount} of {bucket}, left {remaining}"),
            What::TurnedAway { amount, bucket } => format!("turned away with {amount} by {bucket}"),
            What::NotIncluded(Left { open, cost }) => format!("not included {open}{}", priced(cost)),
        };
        let (source, id) = (printable(self.source), printable(id));
        print(&format!("{start} {source} {id}: {quantity}{}: {what}", priced(price)))
    }
}

impl What {
    fn line(self, event: Named<'_>) -> Result<EventLine<'_>, serde_json::Error> {
        let line = |what| EventLine { event, what, amount: None, cost: None, bucket: None, remaining: None };
        Ok(match self {
            What::Held => line("held"),
            What::Reversed => line("reversed"),
            What::Drew { amount, bucket, remaining } => EventLine {
                amount: Some(number(amount)?),
                bucket: Some(bucket.to_string()),
                remaining: Some(number(remaining)?),
                ..line("drew")
            },
            What::TurnedAway { amount, bucket } => {
                EventLine { amount: Some(number(amount)?), bucket: Some(bucket.to_string()), ..line("turned away") }
            }
            What::NotIncluded(Left { open, cost }) => {
                EventLine { amount: Some(number(open)?), cost: Some(number(cost)?), ..line("not included") }
            }
        })
    }
}

/// An event in a line of JSON. (A `serde_json::Value` would make binary floating point of its quantities.)
#[derive(Serialize)]
struct EventLine<'a> {
    event: Named<'a>,
    what: &'a str,
    /// Of the bucket's own kind: money where it is by value. Of what is not included the quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Box<RawValue>>,
    /// Of what is not included the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    source: &'a str,
    id: &'a str,
    start_time: String,
    quantity: Box<RawValue>,
    price: Box<RawValue>,
}

/// A bucket in a line of JSON. Without allowance and remaining the facts give no such bucket.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketLine {
    bucket: String,
    by_value: bool,
    allowance: Option<Box<RawValue>>,
    remaining: Option<Box<RawValue>>,
    /// Whether the store has something else.
    differs: bool,
    stored_allowance: Option<Box<RawValue>>,
    stored_remaining: Option<Box<RawValue>>,
}

/// A quantity as an exact JSON number.
fn number(quantity: Quantity) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(quantity.to_string())
}
