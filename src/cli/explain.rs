//! `headroom explain`: how a customer's buckets came to what is left in them.
//!
//! The ledger is folded by the worker's own code, page by page, and each event is told as it is folded, so that a large
//! customer needs no more memory than a small one. The buckets come last. Reads only, and one moment of the store.

use std::path::PathBuf;

use anyhow::Context as _;
use headroom::config::Needs;
use headroom::domain::{AssignmentKey, BucketRow, Calendar, Instant, Level, Quantity, Refold, UsageState, packed};
use headroom::service::store_options;
use headroom::store::{self, LedgerRow};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Failure;
use super::output::print;
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
    #[arg(long, value_name = "LEVEL/ASSIGNMENT/COMPONENT/WINDOWSTART", value_parser = bucket)]
    bucket: Vec<Bucket>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// How a bucket is known within its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket(AssignmentKey, i64, Instant);

impl Bucket {
    fn of(row: &BucketRow) -> Bucket {
        Bucket(row.assignment, row.component, row.window_start)
    }

    fn name(self) -> String {
        format!("{}/{}/{}/{}", self.0.level.name(), self.0.id, self.1, self.2)
    }
}

fn bucket(text: &str) -> Result<Bucket, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let read = || {
        let [level, assignment, component, start] = parts.as_slice() else { return None };
        let key = AssignmentKey { level: Level::from_name(level)?, id: assignment.parse().ok()? };
        Some(Bucket(key, component.parse().ok()?, Instant::parse(start)?))
    };
    read().ok_or_else(|| {
        "wants LEVEL/assignmentId/componentId/windowStart, such as SITE/5/1/2026-09-01T00:00:00Z".to_owned()
    })
}

/// Folds, and tells.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let Args { customer, bucket, json, settings } = args;
    let config = settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    Ok(block_on(explain(options, customer, bucket, json))??)
}

async fn explain(options: store::Options, customer: i64, only: Vec<Bucket>, json: bool) -> Result<(), anyhow::Error> {
    let store = store::connect(&options)?;
    let settled =
        store.deployment().await?.settled.context("store: no worker has run on it yet, so there is nothing")?;
    let calendar = Calendar::new(&settled.time_zone).context("the store's time zone")?;
    let partition = settled.partitioner.partition_of(customer, settled.partitions);
    let mut snapshot = store.snapshot().await?;
    let sources = snapshot.sources(partition).await?;
    let image = snapshot.account(partition, customer).await?;
    let image = image.with_context(|| format!("--customer {customer}: nothing is known of this customer"))?;
    let mut fold = Refold::new(image, &calendar);
    let wanted = |bucket: Bucket| only.is_empty() || only.contains(&bucket);
    let mut after = None;
    loop {
        let rows = snapshot.usage_after(partition, customer, after, PAGE).await?;
        for row in &rows {
            let usage = packed::unpack(row.position, &row.body).context("a ledger row of a form that is not known")?;
            let event = Event { source: source_of(&sources, row), id: usage.id, quantity: usage.quantity, row };
            if row.state != UsageState::Counted {
                let what = if row.state == UsageState::Held { "held" } else { "reversed" };
                event.tell(json, what, None, None)?;
                continue;
            }
            let draws = fold.fold(&calendar, &usage).to_vec();
            for draw in draws {
                let bucket = fold.bucket(draw.slot).context("a draw of no bucket")?;
                if wanted(Bucket::of(bucket)) {
                    event.tell(json, "drew", Some(bucket), Some(draw.amount))?;
                }
            }
            let qualified = fold.qualified().any(|(key, component, start)| wanted(Bucket(key, component, start)));
            if qualified && !fold.left().is_zero() {
                event.tell(json, "not included", None, Some(fold.left()))?;
            }
        }
        after = rows.last().map(|row| row.position);
        if rows.len() < PAGE {
            break;
        }
    }
    let differences = fold.differences();
    for row in fold.buckets().filter(|row| wanted(Bucket::of(row))) {
        let stored = differences.iter().find(|difference| difference.slot() == row.slot);
        tell_bucket(json, row, stored.map(|difference| difference.stored))?;
    }
    Ok(())
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
    id: &'a str,
    quantity: Quantity,
    row: &'a LedgerRow,
}

impl Event<'_> {
    fn tell(
        &self,
        json: bool,
        what: &str,
        bucket: Option<&BucketRow>,
        amount: Option<Quantity>,
    ) -> Result<(), anyhow::Error> {
        let start = self.row.position.start;
        if json {
            let event = Named {
                source: self.source,
                id: self.id,
                start_time: start.to_string(),
                quantity: number(self.quantity)?,
            };
            let line = EventLine {
                event,
                what,
                amount: amount.map(number).transpose()?,
                bucket: bucket.map(|row| Bucket::of(row).name()),
                remaining: bucket.map(|row| number(row.remaining)).transpose()?,
            };
            return print(&serde_json::to_string(&line)?);
        }
        let amount = amount.map(|amount| format!(" {amount}")).unwrap_or_default();
        let of = bucket.map(|row| format!(" of {}, left {}", Bucket::of(row).name(), row.remaining));
        let (source, id, quantity) = (self.source, self.id, self.quantity);
        print(&format!("{start} {source} {id}: {quantity}: {what}{amount}{}", of.unwrap_or_default()))
    }
}

/// A bucket in the end; `stored` is what the store has where that is something else.
fn tell_bucket(json: bool, row: &BucketRow, stored: Option<Option<BucketRow>>) -> Result<(), anyhow::Error> {
    let name = Bucket::of(row).name();
    if json {
        let line = BucketLine {
            bucket: name,
            by_value: row.by_value,
            allowance: number(row.allowance)?,
            remaining: number(row.remaining)?,
            differs: stored.is_some(),
            stored_remaining: stored.flatten().map(|row| number(row.remaining)).transpose()?,
        };
        return print(&serde_json::to_string(&line)?);
    }
    let differs = stored.map(|stored| match stored {
        Some(stored) => format!("; the store has {} of {}: see headroom rebuild", stored.remaining, stored.allowance),
        None => "; the store has no row of it: see headroom rebuild".to_owned(),
    });
    print(&format!("{name}: {} of {}{}", row.remaining, row.allowance, differs.unwrap_or_default()))
}

/// An event in a line of JSON. (A `serde_json::Value` would make binary floating point of its quantities.)
#[derive(Serialize)]
struct EventLine<'a> {
    event: Named<'a>,
    what: &'a str,
    amount: Option<Box<RawValue>>,
    bucket: Option<String>,
    remaining: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    source: &'a str,
    id: &'a str,
    start_time: String,
    quantity: Box<RawValue>,
}

/// A bucket in a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketLine {
    bucket: String,
    by_value: bool,
    allowance: Box<RawValue>,
    remaining: Box<RawValue>,
    /// Whether the store has something else.
    differs: bool,
    stored_remaining: Option<Box<RawValue>>,
}

/// A quantity as an exact JSON number.
fn number(quantity: Quantity) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(quantity.to_string())
}
