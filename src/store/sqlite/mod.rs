//! The store on SQLite: one process with all roles, for the demo and small installations.
//!
//! The same tables and the same behaviour as PostgreSQL's, statement by row rather than by list: there is no server to
//! wait for. One connection writes; readers see whole commits through the write-ahead log.

mod behind;
mod letters;
mod progress;
mod read;
mod reader;
mod repair;
mod snapshot;
mod write;

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};
use uuid::Uuid;

use super::{
    AcceptedGap, AlertRow, Answer, AppliedUpTo, Commit, CommitError, Deployment, Gaps, LedgerKey, LedgerRow,
    LetterPage, LetterSelection, ListedLetter, OfCustomer, Options, OutboxPart, Partitioned, Place, Progress,
    Published, Question, RelayState, RepairRequest, Repaired, RunFactRow, Settled, Side, Snapshot, Store, StoreError,
    Taken, Wanted, WholeLetter,
};
use crate::domain::{AccountImage, Instant, Partitioner, Position, Totals};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Connections of whoever reads beside the query.
const READERS: u32 = 2;

/// An SQLite database.
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    /// For the query.
    asked: SqlitePool,
    /// How long a statement of the query may take.
    read_timeout: Duration,
    /// The file, for errors.
    place: String,
}

impl Sqlite {
    /// Opens the file at the first use, making it if it is not there.
    pub(super) fn open(options: &Options) -> Result<Sqlite, StoreError> {
        let connect = SqliteConnectOptions::from_str(&options.url)
            .map_err(|_| StoreError::Failed("store.url is no sqlite://path URL".to_owned()))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(options.timeout)
            .disable_statement_logging();
        let place = connect.get_filename().display().to_string();
        let pool = |connections: u32, timeout: Duration| {
            let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(timeout);
            pool.connect_lazy_with(connect.clone())
        };
        Ok(Sqlite {
            writer: pool(1, options.timeout),
            readers: pool(READERS, options.timeout),
            asked: pool(options.read_connections, options.read_timeout),
            read_timeout: options.read_timeout,
            place,
        })
    }

    fn error(&self, error: &sqlx::Error) -> StoreError {
        store_error(&self.place, error)
    }
}

fn store_error(place: &str, error: &sqlx::Error) -> StoreError {
    let line = format!("{}: {}", place, error.to_string().replace('\n', " "));
    // 5, 6: busy and locked. 9: ended since it took too long. 10, 13: input and output, and a full disk.
    let passing = match error {
        sqlx::Error::Database(fault) => {
            let code = fault.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0) & 0xff;
            [5, 6, 9, 10, 13].contains(&code)
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        _ => false,
    };
    if passing { StoreError::Unavailable(line) } else { StoreError::Failed(line) }
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATIONS.run(&self.writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Failed(format!(
                "{}: its schema (migration {version}) is newer than this program; run the version that made it",
                self.place
            )),
            MigrateError::Execute(error) => self.error(&error),
            error => StoreError::Failed(format!("{}: {error}", self.place)),
        })?;
        sqlx::query("INSERT INTO deployment (id, store_id) VALUES (1, ?) ON CONFLICT DO NOTHING")
            .bind(Uuid::new_v4())
            .execute(&self.writer)
            .await
            .map_err(|error| self.error(&error))?;
        Ok(())
    }

    async fn ping(&self, _side: Side) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.map_err(|error| self.error(&error))?;
        Ok(())
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        let found = async {
            let row = sqlx::query("SELECT store_id, partitions, partitioner, time_zone FROM deployment WHERE id = 1")
                .fetch_one(&self.writer)
                .await?;
            let settled = match row.try_get::<Option<i32>, _>("partitions")? {
                None => None,
                Some(partitions) => {
                    let partitioner: String = row.try_get("partitioner")?;
                    let partitioner = Partitioner::from_name(&partitioner)
                        .ok_or_else(|| sqlx::Error::Protocol(format!("deployment.partitioner: \"{partitioner}\"")))?;
                    Some(Settled { partitions, partitioner, time_zone: row.try_get("time_zone")? })
                }
            };
            Ok(Deployment { store_id: row.try_get("store_id")?, settled })
        };
        found.await.map_err(|error: sqlx::Error| match &error {
            sqlx::Error::Database(fault) if fault.message().starts_with("no such table") => {
                StoreError::Failed(format!("{}: it has no tables yet; run headroom migrate", self.place))
            }
            error => self.error(error),
        })
    }

    async fn settle(&self, settled: &Settled) -> Result<Settled, StoreError> {
        write::settle(&self.writer, settled).await.map_err(|error| self.error(&error))?;
        self.deployment()
            .await?
            .settled
            .ok_or_else(|| StoreError::Failed(format!("{}: nothing is settled", self.place)))
    }

    async fn take(&self, partition: i32) -> Result<Taken, StoreError> {
        read::take(&self.writer, partition).await.map_err(|error| self.error(&error))
    }

    async fn accounts(&self, partition: i32, wanted: &[Wanted]) -> Result<Vec<AccountImage>, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(|error| self.error(&error))?;
        let mut images = Vec::new();
        for wanted in wanted {
            let image = read::account(&mut connection, partition, *wanted).await;
            images.extend(image.map_err(|error| self.error(&error))?);
        }
        Ok(images)
    }

    async fn known_usage(&self, partition: i32, keys: &[LedgerKey]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        read::known_usage(&self.writer, partition, keys).await.map_err(|error| self.error(&error))
    }

    async fn usage_after(
        &self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = read::usage_after(&self.writer, partition, customer, after, limit).await;
        rows.map_err(|error| self.error(&error))
    }

    async fn usage_before(
        &self,
        partition: i32,
        customer: i64,
        before: Position,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = read::usage_before(&self.writer, partition, customer, before, limit).await;
        rows.map_err(|error| self.error(&error))
    }

    async fn holders_after(&self, partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        read::holders_after(&self.writer, partition, after, limit).await.map_err(|error| self.error(&error))
    }

    async fn held_usage(&self, partition: i32, customers: &[i64]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        read::held_usage(&self.writer, partition, customers).await.map_err(|error| self.error(&error))
    }

    async fn customers_after(
        &self,
        partition: i32,
        cycle: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let customers = read::customers_after(&self.writer, partition, cycle, after, limit).await;
        customers.map_err(|error| self.error(&error))
    }

    async fn commit(&self, commit: &Commit) -> Result<(), CommitError> {
        match write::commit(&self.writer, commit).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CommitError::Fenced(commit.partition)),
            Err(error) => Err(CommitError::Store(self.error(&error))),
        }
    }

    async fn note_applied(&self, applied: &[AppliedUpTo]) -> Result<(), StoreError> {
        progress::note_applied(&self.writer, applied).await.map_err(|error| self.error(&error))
    }

    async fn facts_at(&self) -> Result<Option<Instant>, StoreError> {
        progress::facts_at(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn run_facts(&self, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, StoreError> {
        read::run_facts(&self.readers, seen).await.map_err(|error| self.error(&error))
    }

    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError> {
        write::lease(&self.writer, holder, seconds).await.map_err(|error| self.error(&error))
    }

    async fn relay_state(&self) -> Result<RelayState, StoreError> {
        read::relay_state(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn outbox_numbers(&self) -> Result<Vec<Partitioned<i64>>, StoreError> {
        read::outbox_numbers(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn outbox(&self, parts: &[OutboxPart], bytes: usize) -> Result<Vec<Partitioned<AlertRow>>, StoreError> {
        read::outbox(&self.readers, parts, bytes).await.map_err(|error| self.error(&error))
    }

    async fn published(&self, published: &Published) -> Result<bool, StoreError> {
        write::published(&self.writer, published).await.map_err(|error| self.error(&error))
    }

    async fn read(&self, question: &Question<'_>) -> Result<Answer, StoreError> {
        reader::answer(&self.asked, self.read_timeout, &self.place, question).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        read::all_totals(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn count_dead_letters(&self, selection: &LetterSelection) -> Result<i64, StoreError> {
        letters::count(&self.readers, selection).await.map_err(|error| self.error(&error))
    }

    async fn list_dead_letters(
        &self,
        selection: &LetterSelection,
        page: &LetterPage,
    ) -> Result<Vec<ListedLetter>, StoreError> {
        letters::list(&self.readers, selection, page).await.map_err(|error| self.error(&error))
    }

    async fn dead_letter(&self, place: &Place) -> Result<Option<WholeLetter>, StoreError> {
        letters::whole(&self.readers, place).await.map_err(|error| self.error(&error))
    }

    async fn dead_letters_put_back(&self, places: &[Place]) -> Result<(), StoreError> {
        letters::put_back(&self.writer, places).await.map_err(|error| self.error(&error))
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let moment = snapshot::Moment::begin(&self.readers, &self.place).await.map_err(|error| self.error(&error))?;
        Ok(Box::new(moment))
    }

    async fn request_repair(&self, request: &RepairRequest) -> Result<(), StoreError> {
        repair::request(&self.writer, request).await.map_err(|error| self.error(&error))
    }

    async fn repair_requests(&self) -> Result<Vec<RepairRequest>, StoreError> {
        repair::requests(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn repaired(&self, request: &RepairRequest) -> Result<Option<Repaired>, StoreError> {
        repair::done(&self.readers, request).await.map_err(|error| self.error(&error))
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        progress::all(&self.readers).await.map_err(|error| self.error(&error))
    }

    async fn note_gaps(&self, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, StoreError> {
        progress::note_gaps(&self.writer, partition, epoch, gaps).await.map_err(|error| self.error(&error))
    }

    async fn accept_gap(&self, accepted: &AcceptedGap) -> Result<bool, StoreError> {
        progress::accept_gap(&self.writer, accepted).await.map_err(|error| self.error(&error))
    }
}
