//! `headroom audit`: every balance held against its usage, and the control totals against the rows.

use std::path::PathBuf;

use headroom::audit;
use headroom::config::Needs;
use headroom::domain::{Calendar, Totals};
use headroom::service::store_options;
use headroom::store::{self, Settled, Store};

use super::Failure;
use super::output::print;
use super::runtime::block_on;
use super::settings::Settings;

/// Customers asked for at once.
const PAGE: usize = 1_000;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this customer's balances
    #[arg(long, value_name = "ID")]
    customer: Option<i64>,
    #[command(flatten)]
    settings: Settings,
}

/// What was looked at.
#[derive(Debug, Default)]
struct Sums {
    customers: u64,
    events: u64,
    drifts: u64,
    /// Customers whose usage is being folded again.
    left_out: u64,
}

/// Prints every difference, then what was looked at; fails when there was a difference.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let Args { customer, settings } = args;
    let config = settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    let sums = block_on(hold(&options, customer))??;
    let Sums { customers, events, drifts, left_out } = sums;
    let rest = if left_out > 0 { format!(", {left_out} customers not compared") } else { String::new() };
    print(&format!("{customers} customers, {events} events, {drifts} differences{rest}"))?;
    if drifts > 0 {
        return Err(Failure::Failed(anyhow::anyhow!("{drifts} differences; `headroom rebuild` repairs balances")));
    }
    Ok(())
}

async fn hold(options: &store::Options, customer: Option<i64>) -> Result<Sums, anyhow::Error> {
    let store = store::connect(options)?;
    let settled = store.deployment().await?.settled;
    let settled = settled.ok_or_else(|| anyhow::anyhow!("no worker ever ran on this store; there is nothing in it"))?;
    let calendar = Calendar::new(&settled.time_zone)?;
    let mut sums = Sums::default();
    if let Some(customer) = customer {
        let partition = settled.partitioner.partition_of(customer, settled.partitions);
        if !one(&*store, &calendar, partition, customer, &mut sums).await? {
            anyhow::bail!("--customer {customer}: nothing is known of this customer");
        }
        return Ok(sums);
    }
    for partition in 0..settled.partitions {
        all_of(&*store, &calendar, &settled, partition, &mut sums).await?;
    }
    Ok(sums)
}

/// All customers of a partition, and its control totals.
async fn all_of(
    store: &dyn Store,
    calendar: &Calendar,
    settled: &Settled,
    partition: i32,
    sums: &mut Sums,
) -> Result<(), anyhow::Error> {
    let mut after = None;
    loop {
        let customers = store.snapshot().await?.customers(partition, after, PAGE).await?;
        for customer in &customers {
            if settled.partitioner.partition_of(*customer, settled.partitions) != partition {
                sums.drifts += 1;
                print(&format!("customer {customer}: stored on partition {partition}, where it does not live"))?;
            }
            one(store, calendar, partition, *customer, sums).await?;
        }
        let Some(last) = customers.last().filter(|_| customers.len() == PAGE) else { break };
        after = Some(*last);
    }
    let mut snapshot = store.snapshot().await?;
    let kept = snapshot.totals(partition).await?;
    // Alerts leave no rows to be summed.
    let (crossed, recovered) = (kept.crossed, kept.recovered);
    let quantity = snapshot.quantities(partition).await?;
    let summed = Totals { quantity, crossed, recovered, ..snapshot.sums(partition).await? };
    if kept != summed {
        sums.drifts += 1;
        print(&format!("partition {partition}, control totals: stored {kept}, summed {summed}"))?;
    }
    Ok(())
}

/// One customer; false when it is not known.
async fn one(
    store: &dyn Store,
    calendar: &Calendar,
    partition: i32,
    customer: i64,
    sums: &mut Sums,
) -> Result<bool, anyhow::Error> {
    let found = audit::customer(store.snapshot().await?.as_mut(), calendar, partition, customer).await?;
    if found.is_unfinished {
        sums.left_out += 1;
        print(&format!("customer {customer}: its usage is being folded again by its worker, so it was not compared"))?;
    }
    for drift in &found.drifts {
        print(&format!("customer {customer}, {drift}"))?;
    }
    sums.customers += u64::from(found.known);
    sums.events += found.events;
    sums.drifts += found.drift_count;
    Ok(found.known)
}
