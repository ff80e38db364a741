//! What the query reads, at one moment of PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Connection as _, Error, Executor as _, Postgres, Row, Transaction};

use super::store_error;
use crate::store::StoreError;
use crate::store::pages::{self, Answer, Cells, Dialect, Question};

static DIALECT: Dialect = Dialect {
    fence: " OFFSET 0",
    days: |column| format!("({column} - date '1970-01-01')"),
    micros: |column| format!("CAST(extract(epoch FROM {column}) * 1000000 AS bigint)"),
    instant: |micros| format!("(timestamptz 'epoch' + {micros} * interval '1 microsecond')"),
    any_of: |column, ids| format!("{column} && ARRAY[{ids}]::int8[]"),
    lateral: true,
    parts: "unnest(s.assignment_ids, s.inclusive_usage_plan_ids, s.component_ids) n(assignment, plan, component)",
};

/// A connection that goes back to its pool by [`Lent::give_back`]. One that nobody waits for any more, since the answer took
/// too long, keeps its place until its statement has ended, so that there are never more statements than connections; but
/// no longer than the database lets one last, since it may never be heard of again.
struct Lent(Option<PoolConnection<Postgres>>, Duration);

impl Lent {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        let longest = self.1;
        tokio::spawn(async move {
            let heard = tokio::time::timeout(longest, connection.ping()).await;
            if !matches!(heard, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
    }
}

/// A read transaction.
struct Moment<'a> {
    transaction: Transaction<'a, Postgres>,
    place: &'a str,
}

/// Answers a question at one moment.
pub(super) async fn answer(
    pool: &PgPool,
    place: &str,
    longest: Duration,
    question: &Question<'_>,
) -> Result<Answer, StoreError> {
    let mut lent = Lent(Some(pool.acquire().await.map_err(|error| store_error(place, &error))?), longest);
    let answer = read(lent.0.as_mut().expect("it was lent just now"), place, question).await;
    lent.give_back();
    answer
}

async fn read(connection: &mut PgConnection, place: &str, question: &Question<'_>) -> Result<Answer, StoreError> {
    let fault = |error: Error| store_error(place, &error);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    let transaction = connection.begin_with(begin).await.map_err(fault)?;
    let mut moment = Moment { transaction, place };
    let answer = pages::answer(&mut moment, question).await?;
    moment.transaction.commit().await.map_err(fault)?;
    Ok(answer)
}

#[async_trait]
impl pages::Moment for Moment<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn each(
        &mut self,
        statement: String,
        numbers: usize,
        text: bool,
        take: &mut (dyn FnMut(Cells) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError> {
        let fault = |error: Error| store_error(self.place, &error);
        // Each statement has its own numbers in it, so none is worth preparing.
        let mut rows = (&mut *self.transaction).fetch(statement.as_str());
        while let Some(row) = rows.try_next().await.map_err(fault)? {
            let each = (0..numbers).map(|at| row.try_get(at)).collect::<Result<_, Error>>();
            let text = if text { row.try_get(numbers) } else { Ok(None) };
            take(Cells { numbers: each.map_err(fault)?, text: text.map_err(fault)? })?;
        }
        Ok(())
    }
}
