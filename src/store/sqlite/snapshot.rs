//! One moment: a read transaction, which the write-ahead log keeps as it began.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Error, Row, Sqlite, Transaction};

use super::{behind, read, store_error};
use crate::domain::{AccountImage, Position, Totals, UsageState, packed};
use crate::store::{LedgerRow, Snapshot, StoreError, Wanted};

/// A read transaction.
pub(super) struct Moment {
    transaction: Transaction<'static, Sqlite>,
    place: String,
}

impl Moment {
    pub(super) async fn begin(pool: &SqlitePool, place: &str) -> Result<Moment, Error> {
        let mut transaction = pool.begin().await?;
        // The moment is that of the first read.
        sqlx::query("SELECT 1 FROM deployment").fetch_all(&mut *transaction).await?;
        Ok(Moment { transaction, place: place.to_owned() })
    }

    async fn read_sums(&mut self, partition: i32) -> Result<Totals, Error> {
        let mut sums = Totals::default();
        let rows = sqlx::query("SELECT state, count(*) events FROM ledger WHERE partition = ? GROUP BY state")
            .bind(partition)
            .fetch_all(&mut *self.transaction)
            .await?;
        for row in &rows {
            let state: UsageState = read::numbered(&UsageState::ALL, row, "state")?;
            state.add_to(&mut sums, row.try_get("events")?);
        }
        // sum() fails beyond 64 bits: units and millionths apart do not get there.
        let rows = sqlx::query(
            "SELECT charging_type, by_value, sum((allowance - remaining) / 1000000) units, \
             sum((allowance - remaining) % 1000000) millionths FROM bucket WHERE partition = ? \
             GROUP BY charging_type, by_value",
        )
        .bind(partition)
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in &rows {
            let (kind, by_value): (i64, bool) = (row.try_get("charging_type")?, row.try_get("by_value")?);
            let (units, millionths): (i64, i64) = (row.try_get("units")?, row.try_get("millionths")?);
            let of = if by_value { &mut sums.drawn_by_value } else { &mut sums.drawn };
            let sum = usize::try_from(kind).ok().and_then(|kind| of.get_mut(kind));
            *sum.ok_or_else(|| Error::Protocol(format!("bucket.charging_type: {kind}")))? =
                i128::from(units) * 1_000_000 + i128::from(millionths);
        }
        Ok(sums)
    }

    async fn read_quantities(&mut self, partition: i32) -> Result<[i128; 3], Error> {
        let mut sums = [0; 3];
        let counted = UsageState::Counted.number();
        let mut rows = sqlx::query("SELECT body FROM ledger WHERE partition = ? AND state = ?")
            .bind(partition)
            .bind(counted)
            .fetch(&mut *self.transaction);
        while let Some(row) = rows.try_next().await? {
            let (kind, quantity) = packed::quantity(row.try_get("body")?)
                .ok_or_else(|| Error::Protocol("ledger.body is of a form that is not known".to_owned()))?;
            sums[usize::from(kind.number())] += i128::from(quantity.millionths());
        }
        Ok(sums)
    }
}

#[async_trait]
impl Snapshot for Moment {
    async fn customers(&mut self, partition: i32, after: Option<i64>, limit: usize) -> Result<Vec<i64>, StoreError> {
        sqlx::query_scalar(
            "SELECT customer_id FROM customer WHERE partition = ? AND customer_id > ? ORDER BY customer_id LIMIT ?",
        )
        .bind(partition)
        .bind(after.unwrap_or(-1))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(|error| store_error(&self.place, &error))
    }

    async fn account(&mut self, partition: i32, customer: i64) -> Result<Option<AccountImage>, StoreError> {
        let image = read::account(&mut self.transaction, partition, Wanted::whole(customer)).await;
        image.map_err(|error| store_error(&self.place, &error))
    }

    async fn is_unfinished(&mut self, partition: i32, customer: i64) -> Result<bool, StoreError> {
        let found = behind::is_unfinished(&mut self.transaction, partition, customer).await;
        found.map_err(|error| store_error(&self.place, &error))
    }

    async fn usage_after(
        &mut self,
        partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = read::usage_after(&mut *self.transaction, partition, customer, after, limit).await;
        rows.map_err(|error| store_error(&self.place, &error))
    }

    async fn sources(&mut self, partition: i32) -> Result<Vec<String>, StoreError> {
        let read = async {
            let rows = sqlx::query("SELECT source FROM source WHERE partition = ? ORDER BY number")
                .bind(partition)
                .fetch_all(&mut *self.transaction)
                .await?;
            let text = |row: &SqliteRow| Ok(String::from_utf8_lossy(row.try_get::<&[u8], _>("source")?).into_owned());
            rows.iter().map(text).collect::<Result<_, Error>>()
        };
        read.await.map_err(|error: Error| store_error(&self.place, &error))
    }

    async fn totals(&mut self, partition: i32) -> Result<Totals, StoreError> {
        let row = sqlx::query("SELECT * FROM progress WHERE partition = ?").bind(partition);
        let row = row.fetch_one(&mut *self.transaction).await;
        row.and_then(|row| read::totals_of(&row)).map_err(|error| store_error(&self.place, &error))
    }

    async fn sums(&mut self, partition: i32) -> Result<Totals, StoreError> {
        self.read_sums(partition).await.map_err(|error| store_error(&self.place, &error))
    }

    async fn quantities(&mut self, partition: i32) -> Result<[i128; 3], StoreError> {
        self.read_quantities(partition).await.map_err(|error| store_error(&self.place, &error))
    }
}
