//! A real store beside the one in memory: each call goes to both, and they must answer alike.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use headroom::domain::{AccountImage, Instant, Partitioner, Position, Totals};
use headroom::store::{
    AcceptedGap, AlertRow, Answer, AppliedUpTo, Commit, CommitError, Deployment, Gaps, LedgerKey, LedgerRow,
    LetterPage, LetterSelection, ListedLetter, OfCustomer, Options, OutboxPart, Partitioned, Place as RecordPlace,
    Progress, Published, Question, RelayState, RepairRequest, Repaired, RunFactRow, Settled, Side, Snapshot, Store,
    StoreError, Taken, Wanted, WholeLetter, connect,
};
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;
use uuid::Uuid;

use crate::store::{Memory, Rows};

/// Which real store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Real {
    Sqlite,
    Postgres,
}

/// Where a real store lives as long as a history is played.
pub(crate) enum Place {
    Folder { _folder: tempfile::TempDir },
    Database { _database: Database },
}

/// A database of its own.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Not in the runtime of the test, which may be ending.
        let dropping =
            std::thread::spawn(move || on_server(&server, &format!("drop database \"{name}\" with (force)")));
        dropping.join().expect("the database can be dropped");
    }
}

fn on_server(server: &str, statement: &str) {
    use sqlx::Connection as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut server = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.expect("PostgreSQL answers");
        sqlx::raw_sql(statement).execute(&mut server).await.expect("a statement");
    });
}

impl Database {
    fn new() -> Database {
        let server = std::env::var("HEADROOM_TEST_POSTGRES").expect(
            "HEADROOM_TEST_POSTGRES is not set: run `make test`, or `scripts/services up` and \
             `eval \"$(scripts/services env)\"`",
        );
        let name = format!("laws-{}", Uuid::new_v4());
        let statement = format!("create database \"{name}\"");
        let of_server = server.clone();
        std::thread::spawn(move || on_server(&of_server, &statement)).join().expect("a database can be made");
        Database { server, name }
    }
}

/// The two of them.
pub(crate) struct Both {
    memory: Arc<Memory>,
    real: Arc<dyn Store>,
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!("the real store: {error}"))
}

impl Both {
    /// An empty real store beside this one.
    pub(crate) async fn new(memory: Arc<Memory>, real: Real, zone: &str) -> Result<(Arc<Both>, Place), TestCaseError> {
        let (url, place) = match real {
            Real::Sqlite => {
                let folder = tempfile::tempdir().expect("a folder");
                let url = format!("sqlite://{}", folder.path().join("headroom.db").display());
                (url, Place::Folder { _folder: folder })
            }
            Real::Postgres => {
                let database = Database::new();
                (format!("{}/{}", database.server, database.name), Place::Database { _database: database })
            }
        };
        let options = Options {
            url,
            read_url: None,
            connections: 2,
            read_connections: 1,
            timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
        };
        let real = connect(&options).map_err(failed)?;
        real.migrate().await.map_err(failed)?;
        let settled = Settled { partitions: 1, partitioner: Partitioner::Murmur2, time_zone: zone.to_owned() };
        prop_assert_eq!(&real.settle(&settled).await.map_err(failed)?, &settled);
        Ok((Arc::new(Both { memory, real }), place))
    }

    /// Holds all that a reader and a relay see of the real store against memory.
    pub(crate) async fn compare(&self) -> Result<(), TestCaseError> {
        let rows = self.memory.rows().clone();
        let customers: Vec<Wanted> = rows.customers.keys().copied().map(Wanted::whole).collect();
        // They are held against each other as they are read.
        self.accounts(0, &customers).await.map_err(failed)?;
        let facts = self.run_facts(&[]).await.map_err(failed)?;
        let seen = |row: &RunFactRow| [Partitioned { partition: 0, value: row.number }];
        if let Some(row) = facts.get(facts.len() / 2) {
            self.run_facts(&seen(row)).await.map_err(failed)?;
        }
        let all = [OutboxPart { partition: 0, after: 0, rows: usize::MAX >> 1 }];
        let alerts = self.real.outbox(&all, usize::MAX >> 1).await.map_err(failed)?;
        prop_assert_eq!(alerts.into_iter().map(|alert| alert.value).collect::<Vec<AlertRow>>(), rows.alerts.clone());
        prop_assert_eq!(self.real.totals().await.map_err(failed)?, rows.totals);
        prop_assert_eq!(
            self.real.outbox_numbers().await.map_err(failed)?,
            vec![Partitioned { partition: 0, value: rows.outbox_number }]
        );
        self.compare_moments(rows).await
    }

    /// Holds what explanations, rebuilds and audits see against memory.
    async fn compare_moments(&self, mut must: Rows) -> Result<(), TestCaseError> {
        let mut found = self.real.snapshot().await.map_err(failed)?;
        let customers = must.customers(0, None, usize::MAX >> 1).await.map_err(failed)?;
        prop_assert_eq!(&found.customers(0, None, usize::MAX >> 1).await.map_err(failed)?, &customers);
        for customer in customers {
            let accounts = |image: Option<AccountImage>| sorted(image.into_iter().collect());
            prop_assert_eq!(
                accounts(found.account(0, customer).await.map_err(failed)?),
                accounts(must.account(0, customer).await.map_err(failed)?)
            );
            prop_assert_eq!(
                found.usage_after(0, customer, None, usize::MAX >> 1).await.map_err(failed)?,
                Snapshot::usage_after(&mut must, 0, customer, None, usize::MAX >> 1).await.map_err(failed)?
            );
        }
        prop_assert_eq!(found.sources(0).await.map_err(failed)?, must.sources(0).await.map_err(failed)?);
        prop_assert_eq!(found.totals(0).await.map_err(failed)?, must.totals(0).await.map_err(failed)?);
        prop_assert_eq!(found.sums(0).await.map_err(failed)?, must.sums(0).await.map_err(failed)?);
        prop_assert_eq!(found.quantities(0).await.map_err(failed)?, must.quantities(0).await.map_err(failed)?);
        Ok(())
    }
}

/// Accounts in an order that does not depend on the store.
fn sorted(mut accounts: Vec<AccountImage>) -> Vec<AccountImage> {
    accounts.sort_by_key(|account| account.customer);
    for account in &mut accounts {
        account.assignments.sort_by_key(|row| row.key);
        account.lines.sort_by_key(|row| row.upi);
        account.buckets.sort_by_key(|row| row.slot);
        account.pending_reversals.sort_unstable();
    }
    accounts
}

#[async_trait]
impl Store for Both {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.real.migrate().await
    }

    async fn ping(&self, side: Side) -> Result<(), StoreError> {
        self.real.ping(side).await
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        self.real.deployment().await
    }

    async fn settle(&self, settled: &Settled) -> Result<Settled, StoreError> {
        self.real.settle(settled).await
    }

    async fn take(&self, partition: i32) -> Result<Taken, StoreError> {
        let (mut must, mut found) = (self.memory.take(partition).await?, self.real.take(partition).await?);
        must.bill_runs.sort_by_key(|row| row.run.id);
        found.bill_runs.sort_by_key(|row| row.run.id);
        must.stored_ahead.sort_unstable();
        found.stored_ahead.sort_unstable();
        found.behind.sort_unstable_by_key(|behind| behind.customer);
        assert_eq!(found, must, "taking partition {partition}");
        Ok(found)
    }

    async fn accounts(&self, partition: i32, wanted: &[Wanted]) -> Result<Vec<AccountImage>, StoreError> {
        let found = sorted(self.real.accounts(partition, wanted).await?);
        assert_eq!(found, sorted(self.memory.accounts(partition, wanted).await?));
        Ok(found)
    }

    async fn known_usage(&self, partition: i32, keys: &[LedgerKey]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        let in_order = |mut rows: Vec<OfCustomer<LedgerRow>>| {
            rows.sort_by_key(|row| (row.customer, row.row.position));
            rows
        };
        let found = in_order(self.real.known_usage(partition, keys).await?);
        assert_eq!(found, in_order(self.memory.known_usage(partition, keys).await?));
        Ok(found)
    }

    async fn usage_after(
        &self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let found = self.real.usage_after(partition, customer, after, limit).await?;
        assert_eq!(found, self.memory.usage_after(partition, customer, after, limit).await?);
        Ok(found)
    }

    async fn usage_before(
        &self,
        partition: i32,
        customer: i64,
        before: Position,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let found = self.real.usage_before(partition, customer, before, limit).await?;
        assert_eq!(found, self.memory.usage_before(partition, customer, before, limit).await?);
        Ok(found)
    }

    async fn holders_after(&self, partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        let found = self.real.holders_after(partition, after, limit).await?;
        assert_eq!(found, self.memory.holders_after(partition, after, limit).await?);
        Ok(found)
    }

    async fn held_usage(&self, partition: i32, customers: &[i64]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        let in_order = |mut rows: Vec<OfCustomer<LedgerRow>>| {
            rows.sort_by_key(|row| (row.customer, row.row.position));
            rows
        };
        let found = in_order(self.real.held_usage(partition, customers).await?);
        assert_eq!(found, in_order(self.memory.held_usage(partition, customers).await?));
        Ok(found)
    }

    async fn customers_after(
        &self,
        partition: i32,
        cycle: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let found = self.real.customers_after(partition, cycle, after, limit).await?;
        assert_eq!(found, self.memory.customers_after(partition, cycle, after, limit).await?);
        Ok(found)
    }

    async fn commit(&self, commit: &Commit) -> Result<(), CommitError> {
        match self.memory.commit(commit).await {
            Ok(()) => self.real.commit(commit).await,
            Err(CommitError::Unknown(why)) => {
                self.real.commit(commit).await?;
                Err(CommitError::Unknown(why))
            }
            Err(CommitError::Fenced(partition)) => match self.real.commit(commit).await {
                Err(CommitError::Fenced(found)) if found == partition => Err(CommitError::Fenced(partition)),
                other => panic!("an owner of before wrote: {other:?}"),
            },
            Err(error) => Err(error),
        }
    }

    async fn note_applied(&self, applied: &[AppliedUpTo]) -> Result<(), StoreError> {
        self.real.note_applied(applied).await
    }

    async fn facts_at(&self) -> Result<Option<Instant>, StoreError> {
        self.real.facts_at().await
    }

    async fn run_facts(&self, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, StoreError> {
        let found = self.real.run_facts(seen).await?;
        assert_eq!(found, self.memory.run_facts(seen).await?, "facts about bill runs");
        Ok(found)
    }

    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError> {
        self.real.lease(holder, seconds).await
    }

    async fn relay_state(&self) -> Result<RelayState, StoreError> {
        self.real.relay_state().await
    }

    async fn outbox_numbers(&self) -> Result<Vec<Partitioned<i64>>, StoreError> {
        self.real.outbox_numbers().await
    }

    async fn outbox(&self, parts: &[OutboxPart], bytes: usize) -> Result<Vec<Partitioned<AlertRow>>, StoreError> {
        self.real.outbox(parts, bytes).await
    }

    async fn published(&self, published: &Published) -> Result<bool, StoreError> {
        self.real.published(published).await
    }

    async fn read(&self, question: &Question<'_>) -> Result<Answer, StoreError> {
        self.real.read(question).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.real.totals().await
    }

    async fn count_dead_letters(&self, selection: &LetterSelection) -> Result<i64, StoreError> {
        self.real.count_dead_letters(selection).await
    }

    async fn list_dead_letters(
        &self,
        selection: &LetterSelection,
        page: &LetterPage,
    ) -> Result<Vec<ListedLetter>, StoreError> {
        self.real.list_dead_letters(selection, page).await
    }

    async fn dead_letter(&self, place: &RecordPlace) -> Result<Option<WholeLetter>, StoreError> {
        self.real.dead_letter(place).await
    }

    async fn dead_letters_put_back(&self, places: &[RecordPlace]) -> Result<(), StoreError> {
        self.real.dead_letters_put_back(places).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.real.snapshot().await
    }

    async fn request_repair(&self, request: &RepairRequest) -> Result<(), StoreError> {
        self.real.request_repair(request).await
    }

    async fn repair_requests(&self) -> Result<Vec<RepairRequest>, StoreError> {
        self.real.repair_requests().await
    }

    async fn repaired(&self, request: &RepairRequest) -> Result<Option<Repaired>, StoreError> {
        self.real.repaired(request).await
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        self.real.progress().await
    }

    async fn note_gaps(&self, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, StoreError> {
        self.real.note_gaps(partition, epoch, gaps).await
    }

    async fn accept_gap(&self, accepted: &AcceptedGap) -> Result<bool, StoreError> {
        self.real.accept_gap(accepted).await
    }
}
