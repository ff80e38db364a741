//! One moment: a transaction that sees the same rows however long it lasts.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Error, Postgres, Row, Transaction};

use super::{accounts, behind, load, store_error};
use crate::domain::{AccountImage, Position, Totals, UsageState, packed};
use crate::store::{LedgerRow, Snapshot, StoreError, Wanted};

/// A read transaction.
pub(super) struct Moment {
    transaction: Transaction<'static, Postgres>,
    place: String,
}

impl Moment {
    pub(super) async fn begin(pool: &PgPool, place: &str) -> Result<Moment, Error> {
        let mut transaction = pool.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
        // It holds nobody up, and whoever reads its output may take a while over a page.
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '10min'").execute(&mut *transaction).await?;
        Ok(Moment { transaction, place: place.to_owned() })
    }

    async fn read_sums(&mut self, partition: i32) -> Result<Totals, Error> {
        let mut sums = Totals::default();
        let rows = sqlx::query("SELECT state, count(*) events FROM ledger WHERE partition = $1 GROUP BY state")
            .bind(partition)
            .fetch_all(&mut *self.transaction)
            .await?;
        for row in &rows {
            let (state, events): (i8, i64) = (row.try_get("state")?, row.try_get("events")?);
            let state = usize::try_from(state).ok().and_then(|number| UsageState::ALL.get(number));
            state
                .ok_or_else(|| Error::Protocol("ledger.state is not known to this version".to_owned()))?
                .add_to(&mut sums, events);
        }
        let rows = sqlx::query(
            "SELECT charging_type, by_value, sum(allowance::numeric - remaining)::text drawn FROM bucket \
             WHERE partition = $1 GROUP BY charging_type, by_value",
        )
        .bind(partition)
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in &rows {
            let (kind, by_value): (i16, bool) = (row.try_get("charging_type")?, row.try_get("by_value")?);
            let drawn: &str = row.try_get("drawn")?;
            let of = if by_value { &mut sums.drawn_by_value } else { &mut sums.drawn };
            let sum = usize::try_from(kind).ok().and_then(|kind| of.get_mut(kind)).zip(drawn.parse().ok());
            let (sum, drawn) = sum.ok_or_else(|| Error::Protocol(format!("bucket.charging_type: {kind}")))?;
            *sum = drawn;
        }
        Ok(sums)
    }

    async fn read_quantities(&mut self, partition: i32) -> Result<[i128; 3], Error> {
        let mut sums = [0; 3];
        let counted = UsageState::Counted.number();
        let mut rows = sqlx::query("SELECT body FROM ledger WHERE partition = $1 AND state = $2")
            .bind(partition)
            .bind(i8::try_from(counted).unwrap_or_default())
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
            "SELECT customer_id FROM customer WHERE partition = $1 AND customer_id > $2 ORDER BY customer_id LIMIT $3",
        )
        .bind(partition)
        .bind(after.unwrap_or(-1))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(|error| store_error(&self.place, &error))
    }

    async fn account(&mut self, partition: i32, customer: i64) -> Result<Option<AccountImage>, StoreError> {
        let images = accounts::accounts(&mut self.transaction, partition, &[Wanted::whole(customer)]).await;
        images.map(|mut images| images.pop()).map_err(|error| store_error(&self.place, &error))
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
        let rows = load::usage_after(&mut *self.transaction, partition, customer, after, limit).await;
        rows.map_err(|error| store_error(&self.place, &error))
    }

    async fn sources(&mut self, partition: i32) -> Result<Vec<String>, StoreError> {
        let read = async {
            let rows = sqlx::query("SELECT source FROM source WHERE partition = $1 ORDER BY number")
                .bind(partition)
                .fetch_all(&mut *self.transaction)
                .await?;
            let text = |row: &PgRow| Ok(String::from_utf8_lossy(row.try_get::<&[u8], _>("source")?).into_owned());
            rows.iter().map(text).collect::<Result<_, Error>>()
        };
        read.await.map_err(|error: Error| store_error(&self.place, &error))
    }

    async fn totals(&mut self, partition: i32) -> Result<Totals, StoreError> {
        let select = format!("SELECT *, {} FROM progress WHERE partition = $1", load::SUMS);
        let row = sqlx::query(&select).bind(partition).fetch_one(&mut *self.transaction).await;
        row.and_then(|row| load::totals_of(&row)).map_err(|error| store_error(&self.place, &error))
    }

    async fn sums(&mut self, partition: i32) -> Result<Totals, StoreError> {
        self.read_sums(partition).await.map_err(|error| store_error(&self.place, &error))
    }

    async fn quantities(&mut self, partition: i32) -> Result<[i128; 3], StoreError> {
        self.read_quantities(partition).await.map_err(|error| store_error(&self.place, &error))
    }
}
