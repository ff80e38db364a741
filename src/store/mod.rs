//! Where facts, usage, buckets, alerts and progress are kept, and the one transaction that moves them on.
//!
//! [`Store`] is what the roles know of a database; `postgres` and `sqlite` stand behind it, held to the same behaviour
//! by one suite of tests. Everything that a commit writes belongs to one partition pair, and a partition pair has one
//! writer: [`Store::take`] raises an epoch, and [`Store::commit`] writes nothing unless epoch and offsets are still the
//! caller's. So what was read since one's own last commit is still true when the next one succeeds, and reading needs
//! no transaction.

mod hex;
mod letters;
mod pages;
mod plans;
mod postgres;
mod rows;
mod snapshot;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use letters::{LetterPage, LetterSelection, ListedLetter, Place, WholeLetter};
pub use pages::{Answer, Filters, Found, Nested, Question, SortKey};
pub use rows::{
    AcceptedGap, AlertRow, AlertsOffset, AppliedUpTo, Behind, Commit, DeadLetterRow, Deployment, Gaps, LedgerKey,
    LedgerRow, NewUsage, OfCustomer, Offsets, OutboxPart, Partitioned, Progress, Published, RelayState, RepairRequest,
    Repaired, ReversalRow, RunFactRow, Settled, StoredAhead, Taken, Unfinished, Wanted,
};
pub use snapshot::Snapshot;

use crate::domain::{AccountImage, Instant, Position, Totals};

/// How to reach a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://…` or `sqlite://…`
    pub url: String,
    /// Where the reader reads, if elsewhere: a replica.
    pub read_url: Option<String>,
    /// Connections of worker and relay.
    pub connections: u32,
    /// Connections of the reader.
    pub read_connections: u32,
    /// How long to wait for a connection.
    pub timeout: Duration,
    /// How long a reader waits for a connection, and for a statement of the query.
    pub read_timeout: Duration,
}

/// What is wrong with the address of a store, as the end of a sentence that begins with its key: what can be told before
/// anything connects. Never holds a password.
pub fn check_url(url: &str) -> Result<(), String> {
    match url.split(':').next() {
        Some("postgres" | "postgresql") => postgres::url::check(url),
        _ => Ok(()),
    }
}

/// Whose way to the store is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The worker's and the relay's.
    Writing,
    /// The reader's, perhaps to a replica.
    Reading,
}

/// The store that the URL names. It need not answer yet.
pub fn connect(options: &Options) -> Result<Arc<dyn Store>, StoreError> {
    let scheme = options.url.split(':').next().unwrap_or_default();
    match scheme {
        "postgres" | "postgresql" => Ok(Arc::new(postgres::Postgres::open(options)?)),
        "sqlite" => Ok(Arc::new(sqlite::Sqlite::open(options)?)),
        _ => Err(StoreError::Failed(format!("store.url: \"{scheme}:\" is not known; use postgres:// or sqlite://"))),
    }
}

/// What can go wrong with a store, in one line for a person. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not in time; trying again may help.
    #[error("store: {0}")]
    Unavailable(String),
    /// Trying again does not help.
    #[error("store: {0}")]
    Failed(String),
}

/// How a commit can fail.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The progress row is not the caller's any more; nothing was written.
    #[error("partition {0} has another owner")]
    Fenced(i32),
    /// The answer to COMMIT was lost: it may or may not be written.
    #[error("store: the answer to COMMIT was lost: {0}")]
    Unknown(String),
    /// Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A database that keeps balances.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Brings the schema up to this program's, making the deployment's store id the first time. A schema that is newer
    /// than the program is refused.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Whether it answers, in less than [`Options::timeout`] or so.
    async fn ping(&self, side: Side) -> Result<(), StoreError>;

    /// The store's identity, and what was settled for it.
    async fn deployment(&self) -> Result<Deployment, StoreError>;

    /// Settles what can never change later, unless it is settled already, and makes a progress row for each partition.
    /// Returns what is settled then; the caller compares.
    async fn settle(&self, settled: &Settled) -> Result<Settled, StoreError>;

    /// Takes a partition pair: raises its epoch and says where to go on. From then on no earlier owner can commit.
    async fn take(&self, partition: i32) -> Result<Taken, StoreError>;

    /// Where every partition pair stands, in their order.
    async fn progress(&self) -> Result<Vec<Progress>, StoreError>;

    /// Notes gaps beside those that are noted already, if the epoch is still the caller's; false when it is not.
    async fn note_gaps(&self, partition: i32, epoch: i64, gaps: Gaps) -> Result<bool, StoreError>;

    /// Lets a partition pair go on behind a gap, if its epoch is still the one that was looked at; false when it is not.
    /// Raises the epoch, so that an owner notices. Dead letters of places that the topic has anew stay, under a topic
    /// that is named `<topic>~<epoch>`.
    async fn accept_gap(&self, accepted: &AcceptedGap) -> Result<bool, StoreError>;

    /// The accounts of these customers of a partition; one for each that is known, in any order.
    async fn accounts(&self, partition: i32, wanted: &[Wanted]) -> Result<Vec<AccountImage>, StoreError>;

    /// The ledger rows that are there under these keys, in any order.
    async fn known_usage(&self, partition: i32, keys: &[LedgerKey]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError>;

    /// Up to `limit` ledger rows of a customer after a position, in order.
    async fn usage_after(
        &self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError>;

    /// Up to `limit` ledger rows of a customer before a position, the latest first.
    async fn usage_before(
        &self,
        partition: i32,
        customer: i64,
        before: Position,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError>;

    /// The customer of each event that is held and not reversed, after a customer and in order; up to `limit`.
    async fn holders_after(&self, partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, StoreError>;

    /// The usage of customers that is held and not reversed, in any order.
    async fn held_usage(&self, partition: i32, customers: &[i64]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError>;

    /// Up to `limit` customers of a billing cycle after a customer, in order. Customers without a fact are in cycle 0.
    async fn customers_after(
        &self,
        partition: i32,
        cycle: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>, StoreError>;

    /// Writes a batch's effect, all of it or nothing. Its first statement is the fence.
    async fn commit(&self, commit: &Commit) -> Result<(), CommitError>;

    /// Notes up to what times partitions have applied things. One that has another owner is passed over; a later time
    /// stays.
    async fn note_applied(&self, applied: &[AppliedUpTo]) -> Result<(), StoreError>;

    /// A time up to which every partition has applied all assignment-events; `None` where one never said so.
    async fn facts_at(&self) -> Result<Option<Instant>, StoreError>;

    /// The facts about bill runs that held in the partitions that they came in on, by partition and number; of those of
    /// which the last number `seen` is given only what came after it.
    async fn run_facts(&self, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, StoreError>;

    /// Takes or keeps the relay's lease for `seconds`; false while another holds it.
    async fn lease(&self, holder: uuid::Uuid, seconds: u32) -> Result<bool, StoreError>;

    /// Where the relay stood when it last said so.
    async fn relay_state(&self) -> Result<RelayState, StoreError>;

    /// The number of the last alert of each partition, published or not.
    async fn outbox_numbers(&self) -> Result<Vec<Partitioned<i64>>, StoreError>;

    /// The alerts of these parts, by partition and number: as many as it takes to come to so many bytes. The parts are in
    /// the order of their partitions.
    async fn outbox(&self, parts: &[OutboxPart], bytes: usize) -> Result<Vec<Partitioned<AlertRow>>, StoreError>;

    /// Notes what is on the alerts topic, and lets those alerts leave the outbox. False, with nothing noted, when the store
    /// does not know what it should before that: another relay noted something, or it went back to an earlier moment and
    /// lost what else is on the topic before these offsets.
    async fn published(&self, published: &Published) -> Result<bool, StoreError>;

    /// A page of the query's rows, as they are at one moment.
    async fn read(&self, question: &Question<'_>) -> Result<Answer, StoreError>;

    /// Control totals over all partitions.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// How many dead letters there are.
    async fn count_dead_letters(&self, selection: &LetterSelection) -> Result<i64, StoreError>;

    /// A part of the list of dead letters, in the order in which they were refused.
    async fn list_dead_letters(
        &self,
        selection: &LetterSelection,
        page: &LetterPage,
    ) -> Result<Vec<ListedLetter>, StoreError>;

    /// A dead letter, whole.
    async fn dead_letter(&self, place: &Place) -> Result<Option<WholeLetter>, StoreError>;

    /// Notes that these dead letters were put back now.
    async fn dead_letters_put_back(&self, places: &[Place]) -> Result<(), StoreError>;

    /// Brings what the store knows of its tables' sizes up to date where they have outgrown it; a store that plans without
    /// such knowledge has nothing to do.
    async fn keep_statistics(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The store as it is now, for as long as it is looked at.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Asks the owner of a partition for a repair.
    async fn request_repair(&self, request: &RepairRequest) -> Result<(), StoreError>;

    /// The repairs that are asked for and not done, in any order.
    async fn repair_requests(&self) -> Result<Vec<RepairRequest>, StoreError>;

    /// What a repair changed, once it is done.
    async fn repaired(&self, request: &RepairRequest) -> Result<Option<Repaired>, StoreError>;
}
