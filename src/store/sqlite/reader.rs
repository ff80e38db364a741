//! What the query reads, at one moment of SQLite.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqlitePool;
use sqlx::{Error, Executor as _, Row, Sqlite, Transaction};

use super::store_error;
use crate::store::StoreError;
use crate::store::pages::{self, Answer, Cells, Dialect, Question};

static DIALECT: Dialect = Dialect {
    fence: " LIMIT -1 OFFSET 0",
    days: str::to_owned,
    micros: str::to_owned,
    instant: str::to_owned,
    any_of: |column, ids| format!("EXISTS (SELECT 1 FROM json_each({column}) n WHERE n.value IN ({ids}))"),
    lateral: false,
    parts: "(SELECT a.value AS assignment, p.value AS plan, c.value AS component FROM json_each(s.assignment_ids) a \
            JOIN json_each(s.inclusive_usage_plan_ids) p ON p.key = a.key \
            JOIN json_each(s.component_ids) c ON c.key = a.key) n",
};

/// How many steps of its machine SQLite makes between two looks at the clock.
const STEPS: i32 = 10_000;

/// A read transaction.
struct Moment {
    transaction: Transaction<'static, Sqlite>,
    place: String,
}

/// Answers a question at one moment.
pub(super) async fn answer(
    pool: &SqlitePool,
    timeout: Duration,
    place: &str,
    question: &Question<'_>,
) -> Result<Answer, StoreError> {
    let fault = |error: Error| store_error(place, &error);
    let mut transaction = pool.begin().await.map_err(fault)?;
    // There is no server that ends a statement which nobody waits for any more.
    let end = Instant::now() + timeout;
    transaction.lock_handle().await.map_err(fault)?.set_progress_handler(STEPS, move || Instant::now() < end);
    let mut moment = Moment { transaction, place: place.to_owned() };
    let answer = pages::answer(&mut moment, question).await?;
    moment.transaction.commit().await.map_err(fault)?;
    Ok(answer)
}

#[async_trait]
impl pages::Moment for Moment {
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
        let fault = |error: Error| store_error(&self.place, &error);
        let mut rows = (&mut *self.transaction).fetch(statement.as_str());
        while let Some(row) = rows.try_next().await.map_err(fault)? {
            let each = (0..numbers).map(|at| row.try_get(at)).collect::<Result<_, Error>>();
            let text = if text { row.try_get(numbers) } else { Ok(None) };
            take(Cells { numbers: each.map_err(fault)?, text: text.map_err(fault)? })?;
        }
        Ok(())
    }
}
