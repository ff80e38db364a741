//! The store on PostgreSQL: what runs in production.
//!
//! `commit` writes a batch (`copy` encodes its ledger rows), `load` reads what a worker needs, `relay` and `reader` what
//! the other two roles need. This module connects, migrates, and hands out the trait's methods.

mod accounts;
mod behind;
mod commit;
mod connections;
mod copy;
mod holder;
mod letters;
mod load;
mod probe;
mod progress;
mod reader;
mod relay;
mod repair;
mod snapshot;
mod statistics;
mod types;
pub(super) mod url;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use super::{
    AcceptedGap, AlertRow, Answer, AppliedUpTo, Commit, CommitError, Deployment, Gaps, LedgerKey, LedgerRow,
    LetterPage, LetterSelection, ListedLetter, OfCustomer, Options, OutboxPart, Partitioned, Place, Progress,
    Published, Question, RelayState, RepairRequest, Repaired, RunFactRow, Settled, Side, Snapshot, Store, StoreError,
    Taken, Wanted, WholeLetter,
};
use crate::domain::{AccountImage, Instant, Partitioner, Position, Totals};
use connections::Connections;
use probe::Probe;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// A PostgreSQL database.
pub(super) struct Postgres {
    /// For the worker.
    connections: Connections,
    /// For the relay, which must not wait for a worker's long commits.
    relay: Connections,
    /// For the reader; perhaps a replica's.
    read_pool: PgPool,
    /// How to connect for what may take a while.
    connect: PgConnectOptions,
    /// Writing and reading.
    probes: [Probe; 2],
    read_timeout: Duration,
    /// The key, host, port, database and user, for errors.
    place: String,
    /// The same of the reader's.
    read_place: String,
}

/// How long a statement of worker or relay may take, in times of what a connection may.
const DEADLINE: u32 = 12;

/// How long analyzing tables may take.
const ANALYZING: Duration = Duration::from_secs(600);
/// Connections of the relay: for its lease, and for what it publishes.
const RELAY_CONNECTIONS: u32 = 2;

/// SQLSTATEs of faults that pass: connections, resources, an operator's doing, the disk, serialization, deadlocks and
/// locks, a transaction that its client left idle for too long, and a standby that is yet to be promoted.
const PASSING: [&str; 8] = ["08", "53", "57", "58", "40", "55", "25P03", "25006"];

impl Postgres {
    /// Connects lazily: a database that does not answer shows at the first use.
    pub(super) fn open(options: &Options) -> Result<Postgres, StoreError> {
        let parse = |url: &str, key: &str| url::options(url, key).map_err(StoreError::Failed);
        // Compiling a statement of a few milliseconds takes seconds once it has hundreds of branches.
        let parse = |url: &str, key: &str| parse(url, key).map(|(to, place)| (to.options([("jit", "off")]), place));
        let (main, place) = parse(&options.url, "store.url")?;
        let (read, read_place) = match &options.read_url {
            Some(url) => parse(url, "store.read_url")?,
            None => (main.clone(), place.clone()),
        };
        // The database ends a statement that nobody waits for any more.
        let longest = options.read_timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into()).to_string();
        let read = read.options([("default_transaction_read_only", "on"), ("statement_timeout", &longest)]);
        // Each of a worker's statements is for rows of its keys. A plan made while a table was empty would read all of it.
        let main_by_index = main.clone().options([("enable_seqscan", "off")]);
        // Each statement fails clearly on a dead connection; a check before each would cost a round trip.
        let pools = |connections: u32, timeout: Duration| {
            PgPoolOptions::new().max_connections(connections).acquire_timeout(timeout).test_before_acquire(false)
        };
        let pool = |connect: PgConnectOptions, connections: u32, timeout: Duration| {
            pools(connections, timeout).connect_lazy_with(connect)
        };
        let place = format!("store.url: {place}");
        let read_place =
            format!("{}: {read_place}", if options.read_url.is_some() { "store.read_url" } else { "store.url" });
        let probes = [(&main, &place), (&read, &read_place)];
        Ok(Postgres {
            probes: probes.map(|(connect, place)| Probe::new(connect.clone(), place.clone(), options.timeout)),
            connections: Connections::new(
                pools(options.connections, options.timeout),
                main_by_index.clone(),
                DEADLINE * options.timeout,
            ),
            relay: Connections::new(
                pools(RELAY_CONNECTIONS, options.timeout),
                main_by_index,
                DEADLINE * options.timeout,
            ),
            read_pool: pool(read, options.read_connections, options.read_timeout),
            connect: main,
            place,
            read_place,
            read_timeout: options.read_timeout,
        })
    }

    /// What this comes to on the worker's connections.
    async fn ask<T, F>(&self, work: impl FnOnce(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        self.ask_on(&self.connections, work).await
    }

    /// The same on the relay's own.
    async fn ask_for_relay<T, F>(&self, work: impl FnOnce(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        self.ask_on(&self.relay, work).await
    }

    async fn ask_on<T, F>(&self, connections: &Connections, work: impl FnOnce(PgPool) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        match connections.within(work(connections.pool())).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.why(&error).await),
        }
    }

    /// An error in one line that names the database.
    fn error(&self, error: &sqlx::Error) -> StoreError {
        store_error(&self.place, error)
    }

    /// The same, and why the pool has no connection, of which it says nothing.
    async fn why(&self, error: &sqlx::Error) -> StoreError {
        let told = match error {
            sqlx::Error::PoolTimedOut => self.ping(Side::Writing).await.err(),
            _ => None,
        };
        told.unwrap_or_else(|| self.error(error))
    }
}

fn store_error(place: &str, error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(fault) => {
            let code = fault.code().unwrap_or_default();
            let line = format!("{place}: {}", fault.message().replace('\n', " "));
            if PASSING.iter().any(|class| code.starts_with(class)) {
                StoreError::Unavailable(line)
            } else {
                StoreError::Failed(line)
            }
        }
        sqlx::Error::Tls(fault) => StoreError::Unavailable(format!("{place}: TLS: {fault}")),
        // As rustls tells of certificates.
        sqlx::Error::Io(fault) if fault.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Unavailable(format!("{place}: TLS: {fault}; look at its sslmode and sslrootcert"))
        }
        sqlx::Error::Io(fault) => StoreError::Unavailable(format!("{place}: {fault}")),
        sqlx::Error::PoolTimedOut => StoreError::Unavailable(format!(
            "{place}: no connection in time: it takes none, or all that this process may have are in use"
        )),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => StoreError::Unavailable(format!("{place}: {error}")),
        error => StoreError::Failed(format!("{place}: {error}")),
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<(), StoreError> {
        match MIGRATIONS.run(&self.connections.pool()).await {
            Ok(()) => {}
            Err(MigrateError::VersionMissing(version)) => {
                return Err(StoreError::Failed(format!(
                    "{}: its schema (migration {version}) is newer than this program; run the version that made it",
                    self.place
                )));
            }
            Err(MigrateError::Execute(error)) => return Err(self.why(&error).await),
            Err(error) => return Err(StoreError::Failed(format!("{}: {error}", self.place))),
        }
        sqlx::query("INSERT INTO deployment (id, store_id) VALUES (1, $1) ON CONFLICT DO NOTHING")
            .bind(Uuid::new_v4())
            .execute(&self.connections.pool())
            .await
            .map_err(|error| self.error(&error))?;
        Ok(())
    }

    async fn ping(&self, side: Side) -> Result<(), StoreError> {
        self.probes[side as usize].ask().await
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        let asked = sqlx::query("SELECT store_id, partitions, partitioner, time_zone FROM deployment WHERE id = 1")
            .fetch_one(&self.connections.pool())
            .await;
        let row = match asked {
            Ok(row) => row,
            Err(sqlx::Error::Database(fault)) if fault.code().as_deref() == Some("42P01") => {
                return Err(StoreError::Failed(format!("{}: it has no tables yet; run headroom migrate", self.place)));
            }
            Err(error) => return Err(self.why(&error).await),
        };
        let settled = || -> Result<Option<Settled>, sqlx::Error> {
            let Some(partitions) = row.try_get::<Option<i32>, _>("partitions")? else { return Ok(None) };
            let partitioner: String = row.try_get("partitioner")?;
            let partitioner = Partitioner::from_name(&partitioner)
                .ok_or_else(|| sqlx::Error::Protocol(format!("deployment.partitioner: \"{partitioner}\"")))?;
            Ok(Some(Settled { partitions, partitioner, time_zone: row.try_get("time_zone")? }))
        };
        let store_id = row.try_get("store_id").map_err(|error| self.error(&error))?;
        Ok(Deployment { store_id, settled: settled().map_err(|error| self.error(&error))? })
    }

    async fn settle(&self, settled: &Settled) -> Result<Settled, StoreError> {
        let result = async {
            let mut transaction = self.connections.pool().begin().await?;
            sqlx::query(
                "UPDATE deployment SET partitions = $1, partitioner = $2, time_zone = $3 \
                 WHERE id = 1 AND partitions IS NULL",
            )
            .bind(settled.partitions)
            .bind(settled.partitioner.name())
            .bind(&settled.time_zone)
            .execute(&mut *transaction)
            .await?;
            // Rows that are there are not even tried: that would wait for whoever is changing one.
            sqlx::query(
                "INSERT INTO progress (partition, epoch, usage_offset, assignments_offset, outbox_number) \
                 SELECT p, 0, 0, 0, 0 FROM generate_series(0, (SELECT partitions FROM deployment WHERE id = 1) - 1) p \
                 WHERE NOT EXISTS (SELECT 1 FROM progress WHERE partition = p) ON CONFLICT DO NOTHING",
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        };
        result.await.map_err(|error| self.error(&error))?;
        self.deployment()
            .await?
            .settled
            .ok_or_else(|| StoreError::Failed(format!("{}: nothing is settled", self.place)))
    }

    async fn take(&self, partition: i32) -> Result<Taken, StoreError> {
        self.ask(|pool| async move { load::take(&pool, partition).await }).await
    }

    async fn accounts(&self, partition: i32, wanted: &[Wanted]) -> Result<Vec<AccountImage>, StoreError> {
        self.ask(|pool| async move { accounts::accounts(&mut *pool.acquire().await?, partition, wanted).await }).await
    }

    async fn known_usage(&self, partition: i32, keys: &[LedgerKey]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        self.ask(|pool| async move { load::known_usage(&pool, partition, keys).await }).await
    }

    async fn usage_after(
        &self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        self.ask(|pool| async move { load::usage_after(&pool, partition, customer, after, limit).await }).await
    }

    async fn usage_before(
        &self,
        partition: i32,
        customer: i64,
        before: Position,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        self.ask(|pool| async move { load::usage_before(&pool, partition, customer, before, limit).await }).await
    }

    async fn holders_after(&self, partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        self.ask(|pool| async move { load::holders_after(&pool, partition, after, limit).await }).await
    }

    async fn held_usage(&self, partition: i32, customers: &[i64]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        self.ask(|pool| async move { load::held_usage(&pool, partition, customers).await }).await
    }

    async fn customers_after(
        &self,
        partition: i32,
        cycle: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        self.ask(|pool| async move { load::customers_after(&pool, partition, cycle, after, limit).await }).await
    }

    async fn commit(&self, commit: &Commit) -> Result<(), CommitError> {
        let pool = self.connections.pool();
        let written = async { Ok(commit::write(&pool, commit, |error| self.error(error)).await) };
        // It may have been written all the same.
        let lost = |error: sqlx::Error| CommitError::Unknown(self.error(&error).to_string());
        self.connections.within(written).await.map_err(lost)?
    }

    async fn note_applied(&self, applied: &[AppliedUpTo]) -> Result<(), StoreError> {
        self.ask(|pool| async move { progress::note_applied(&pool, applied).await }).await
    }

    async fn facts_at(&self) -> Result<Option<Instant>, StoreError> {
        self.ask(|pool| async move { progress::facts_at(&pool).await }).await
    }

    async fn run_facts(&self, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, StoreError> {
        self.ask(|pool| async move { load::run_facts(&pool, seen).await }).await
    }

    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError> {
        self.ask_for_relay(|pool| async move { relay::lease(&pool, holder, seconds).await }).await
    }

    async fn relay_state(&self) -> Result<RelayState, StoreError> {
        self.ask_for_relay(|pool| async move { relay::state(&pool).await }).await
    }

    async fn outbox_numbers(&self) -> Result<Vec<Partitioned<i64>>, StoreError> {
        self.ask_for_relay(|pool| async move { relay::outbox_numbers(&pool).await }).await
    }

    async fn outbox(&self, parts: &[OutboxPart], bytes: usize) -> Result<Vec<Partitioned<AlertRow>>, StoreError> {
        self.ask_for_relay(|pool| async move { relay::outbox(&pool, parts, bytes).await }).await
    }

    async fn published(&self, published: &Published) -> Result<bool, StoreError> {
        self.ask_for_relay(|pool| async move { relay::published(&pool, published).await }).await
    }

    async fn read(&self, question: &Question<'_>) -> Result<Answer, StoreError> {
        // A statement of the reader ends after its own timeout.
        let longest = self.read_timeout + Duration::from_secs(1);
        reader::answer(&self.read_pool, &self.read_place, longest, question).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.ask(|pool| async move { load::all_totals(&pool).await }).await
    }

    async fn count_dead_letters(&self, selection: &LetterSelection) -> Result<i64, StoreError> {
        self.ask(|pool| async move { letters::count(&pool, selection).await }).await
    }

    async fn list_dead_letters(
        &self,
        selection: &LetterSelection,
        page: &LetterPage,
    ) -> Result<Vec<ListedLetter>, StoreError> {
        self.ask(|pool| async move { letters::list(&pool, selection, page).await }).await
    }

    async fn dead_letter(&self, place: &Place) -> Result<Option<WholeLetter>, StoreError> {
        self.ask(|pool| async move { letters::whole(&pool, place).await }).await
    }

    async fn dead_letters_put_back(&self, places: &[Place]) -> Result<(), StoreError> {
        self.ask(|pool| async move { letters::put_back(&pool, places).await }).await
    }

    async fn keep_statistics(&self) -> Result<(), StoreError> {
        let pool = self.connections.pool();
        match tokio::time::timeout(ANALYZING, statistics::keep(&pool, &self.connect)).await {
            Ok(kept) => kept.map_err(|error| self.error(&error)),
            Err(_) => Err(StoreError::Unavailable(format!("{}: no answer within {ANALYZING:?}", self.place))),
        }
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let moment = match snapshot::Moment::begin(&self.connections.pool(), &self.place).await {
            Ok(moment) => moment,
            Err(error) => return Err(self.why(&error).await),
        };
        Ok(Box::new(moment))
    }

    async fn request_repair(&self, request: &RepairRequest) -> Result<(), StoreError> {
        self.ask(|pool| async move { repair::request(&pool, request).await }).await
    }

    async fn repair_requests(&self) -> Result<Vec<RepairRequest>, StoreError> {
        self.ask(|pool| async move { repair::requests(&pool).await }).await
    }

    async fn repaired(&self, request: &RepairRequest) -> Result<Option<Repaired>, StoreError> {
        self.ask(|pool| async move { repair::done(&pool, request).await }).await
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        self.ask(|pool| async move { progress::all(&pool).await }).await
    }

    async fn note_gaps(&self, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, StoreError> {
        self.ask(|pool| async move { progress::note_gaps(&pool, partition, epoch, gaps).await }).await
    }

    async fn accept_gap(&self, accepted: &AcceptedGap) -> Result<bool, StoreError> {
        self.ask(|pool| async move { progress::accept_gap(&pool, accepted).await }).await
    }
}
