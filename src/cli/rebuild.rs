//! `headroom rebuild`: folds balances from the ledger, and reports or repairs what the store has otherwise.
//!
//! The report reads only. A repair is asked for with the partition's owner, which carries it out in a commit of its own;
//! where nobody does, the command takes the partition, which fences any owner that was merely slow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headroom::config::{Config, Needs};
use headroom::domain::{BucketRow, Calendar, LineRow, Totals};
use headroom::service::{store_options, worker_context};
use headroom::store::{self, CommitError, RepairRequest, Repaired, Settled, Store};
use headroom::worker::{Differences, Partition, refold};
use uuid::Uuid;

use super::Failure;
use super::output::print;
use super::runtime::block_on;
use super::settings::Settings;

/// Customers that are looked for at once.
const PAGE: usize = 1_000;
/// How long a partition may stand still before the command takes it: an owner that is busy commits meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether a repair is done.
const PERIOD: Duration = Duration::from_millis(200);

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    what: What,
    /// Only report what differs; then exit code 1 tells that something does
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Whose balances.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Those of this customer
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    customer: Option<i64>,
    /// Those of all customers of this partition
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Those of all customers
    #[arg(long)]
    all: bool,
}

/// Folds, reports and, unless that is all that was asked for, repairs.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let Args { what, dry_run, settings } = args;
    let config = settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    block_on(async {
        let store = store::connect(&options).map_err(anyhow::Error::from)?;
        let deployment = store.deployment().await.map_err(anyhow::Error::from)?;
        let Some(settled) = deployment.settled else {
            return Err(Failure::Failed(anyhow::anyhow!("store: no worker has run on it yet, so there is nothing")));
        };
        let partitions = match (what.customer, what.partition) {
            (Some(customer), _) => {
                let partition = settled.partitioner.partition_of(customer, settled.partitions);
                partition..partition + 1
            }
            (None, Some(partition)) if partition >= settled.partitions => {
                let line = format!("--partition {partition}: there are {}, from 0 on", settled.partitions);
                return Err(Failure::Use(line));
            }
            (None, Some(partition)) => partition..partition + 1,
            (None, None) => 0..settled.partitions,
        };
        let calendar = Calendar::new(&settled.time_zone).context("the store's time zone")?;
        let store_id = deployment.store_id;
        let mut rebuild =
            Rebuild { config, store, store_id, settled, calendar, dry_run, own: None, differ: 0, left_out: 0 };
        for partition in partitions {
            rebuild.partition(partition, what.customer).await?;
        }
        rebuild.end()
    })?
}

/// A rebuild under way.
struct Rebuild {
    config: Config,
    store: Arc<dyn Store>,
    store_id: Uuid,
    settled: Settled,
    /// Of the store's time zone, which the command's own config need not name.
    calendar: Calendar,
    dry_run: bool,
    /// The partition that is looked at, once the command has taken it.
    own: Option<Partition>,
    /// How many customers or control totals differed.
    differ: usize,
    /// How many customers were not compared.
    left_out: usize,
}

impl Rebuild {
    /// All customers of a partition, or one of them, and then the control totals.
    async fn partition(&mut self, partition: i32, only: Option<i64>) -> Result<(), anyhow::Error> {
        if let Some(customer) = only
            && self.store.snapshot().await?.account(partition, customer).await?.is_none()
        {
            anyhow::bail!("--customer {customer}: nothing is known of this customer");
        }
        self.own = None;
        let mut after = None;
        loop {
            let customers = match only {
                Some(customer) => vec![customer],
                // A moment for each page: one for all would keep the database from clearing up.
                None => self.store.snapshot().await?.customers(partition, after, PAGE).await?,
            };
            for customer in &customers {
                self.customer(partition, *customer).await?;
            }
            after = customers.last().copied();
            if only.is_some() || customers.len() < PAGE {
                break;
            }
        }
        let mut snapshot = self.store.snapshot().await?;
        let kept = snapshot.totals(partition).await?;
        // Alerts have no rows to be counted, and the quantity is in the ledger's bodies, which are read when all are.
        let quantity = if only.is_some() { kept.quantity } else { snapshot.quantities(partition).await? };
        let (crossed, recovered) = (kept.crossed, kept.recovered);
        let counted = Totals { quantity, crossed, recovered, ..snapshot.sums(partition).await? };
        drop(snapshot);
        if kept != counted {
            self.differ += 1;
            print(&format!("partition {partition}: control totals: stored {kept}, counted {counted}"))?;
            if !self.dry_run {
                self.repair(partition, None).await?;
            }
        }
        Ok(())
    }

    async fn customer(&mut self, partition: i32, customer: i64) -> Result<(), anyhow::Error> {
        let mut snapshot = self.store.snapshot().await?;
        let differences = refold(snapshot.as_mut(), &self.calendar, partition, customer).await?;
        drop(snapshot);
        if differences.is_unfinished {
            self.left_out += 1;
            print(&format!(
                "customer {customer}: its usage is being folded again by its worker, so it was not compared"
            ))?;
        }
        if differences.is_empty() {
            return Ok(());
        }
        self.differ += 1;
        report(customer, &differences)?;
        if !self.dry_run {
            let Repaired { buckets, usage, lines } = self.repair(partition, Some(customer)).await?;
            print(&format!(
                "customer {customer}: repaired {buckets} buckets, {lines} lines and the draws of {usage} usage events"
            ))?;
        }
        Ok(())
    }

    /// Asks for a repair, and waits until it is done.
    async fn repair(&mut self, partition: i32, customer: Option<i64>) -> Result<Repaired, anyhow::Error> {
        let request = RepairRequest { id: Uuid::new_v4(), partition, customer };
        self.store.request_repair(&request).await?;
        if let Some(mut own) = self.own.take() {
            match own.repair(&request).await {
                Ok(()) => {
                    self.own = Some(own);
                    return self.answer(&request).await;
                }
                // A worker has come meanwhile.
                Err(CommitError::Fenced(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (mut moved, mut commits) = (Instant::now(), None);
        while moved.elapsed() < PATIENCE {
            if let Some(repaired) = self.store.repaired(&request).await? {
                return Ok(repaired);
            }
            let progress = self.store.progress().await?;
            let now = progress.iter().find(|row| row.partition == partition).map(|row| (row.epoch, row.commits));
            if now != commits {
                (moved, commits) = (Instant::now(), now);
            }
            tokio::time::sleep(PERIOD).await;
        }
        let calendar = self.calendar.clone();
        let context = worker_context(&self.config, &self.store, self.store_id, &self.settled, calendar);
        let mut own = Partition::new(Arc::new(context), partition, self.store.take(partition).await?);
        own.repair(&request).await?;
        self.own = Some(own);
        self.answer(&request).await
    }

    /// What a repair did that was done here.
    async fn answer(&self, request: &RepairRequest) -> Result<Repaired, anyhow::Error> {
        self.store.repaired(request).await?.context("the repair is done, but the store does not say so")
    }

    fn end(self) -> Result<(), Failure> {
        match (self.differ, self.dry_run) {
            (0, _) if self.left_out > 0 => {
                Ok(print(&format!("nothing else differs; not compared: {} customers; ask again later", self.left_out))?)
            }
            (0, _) => Ok(print("nothing differs")?),
            (_, false) => Ok(()),
            (differ, true) => {
                let line = format!("{differ} differ from the ledger; without --dry-run they are repaired");
                Err(Failure::Failed(anyhow::anyhow!(line)))
            }
        }
    }
}

/// Says what differs, a line of text for each bucket and each line.
fn report(customer: i64, differences: &Differences) -> Result<(), anyhow::Error> {
    for difference in &differences.buckets {
        let Some(row) = difference.stored.or(difference.folded) else { continue };
        let value = |row: Option<BucketRow>| match row {
            None => "no row".to_owned(),
            Some(row) => format!("{} of {}", row.remaining, row.allowance),
        };
        print(&format!(
            "customer {customer}: bucket {}: stored {}, folded {}",
            row.key(),
            value(difference.stored),
            value(difference.folded)
        ))?;
    }
    for difference in &differences.lines {
        let value = |row: Option<LineRow>| match row.map(|row| (row, row.last_usage)) {
            None => "no row".to_owned(),
            Some((_, None)) => "no usage".to_owned(),
            Some((_, Some(last))) => {
                format!("site {} and product {} by usage at {}", last.site, last.product, last.position.start)
            }
        };
        print(&format!(
            "customer {customer}: line {}: stored {}, folded {}",
            difference.upi(),
            value(difference.stored),
            value(difference.folded)
        ))?;
    }
    if differences.buckets.is_empty() && differences.lines.is_empty() && differences.usage.is_empty() {
        print(&format!("customer {customer}: the number of the next bucket was given already"))?;
    }
    if !differences.usage.is_empty() {
        print(&format!("customer {customer}: the draws of {} usage events differ", differences.usage.len()))?;
    }
    Ok(())
}
