//! One moment of a store, whatever is written meanwhile: what explanations, rebuilds and the audit read.
//!
//! It is one read transaction, so it should not be kept for long: a database holds on to what was deleted since.

use async_trait::async_trait;

use super::{LedgerRow, StoreError};
use crate::domain::{AccountImage, Position, Totals};

/// A read transaction.
#[async_trait]
pub trait Snapshot: Send {
    /// Up to `limit` customers of a partition after a customer, in order.
    async fn customers(&mut self, partition: i32, after: Option<i64>, limit: usize) -> Result<Vec<i64>, StoreError>;

    /// A customer's account, if it is known.
    async fn account(&mut self, partition: i32, customer: i64) -> Result<Option<AccountImage>, StoreError>;

    /// Whether the customer is behind and a fold of its usage is not finished, so that its ledger's draws and its buckets
    /// cannot be held against each other now.
    async fn is_unfinished(&mut self, partition: i32, customer: i64) -> Result<bool, StoreError>;

    /// Up to `limit` ledger rows of a customer after a position, in order.
    async fn usage_after(
        &mut self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError>;

    /// The text of the sources that have a number: that of number n + 1 is at n.
    async fn sources(&mut self, partition: i32) -> Result<Vec<String>, StoreError>;

    /// A partition's control totals as its commits kept them up.
    async fn totals(&mut self, partition: i32) -> Result<Totals, StoreError>;

    /// The same counted anew where the tables tell: usage events by state from the ledger, what is drawn from the
    /// buckets. The rest is nothing.
    async fn sums(&mut self, partition: i32) -> Result<Totals, StoreError>;

    /// The quantity of the usage that counts, by charging type's number, added up from the ledger. It reads all of the
    /// partition's ledger.
    async fn quantities(&mut self, partition: i32) -> Result<[i128; 3], StoreError>;
}
