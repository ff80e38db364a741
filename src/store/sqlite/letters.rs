//! Dead letters, for operators.

use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use sqlx::{Error, QueryBuilder, Row};

use crate::domain::{Instant, Reason};
use crate::store::{DeadLetterRow, LetterPage, LetterSelection, ListedLetter, Place, WholeLetter, hex};

/// How many there are.
pub(super) async fn count(pool: &SqlitePool, selection: &LetterSelection) -> Result<i64, Error> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM dead_letter WHERE 1");
    select(&mut query, selection);
    query.build_query_scalar().fetch_one(pool).await
}

/// A part of their list.
pub(super) async fn list(
    pool: &SqlitePool,
    selection: &LetterSelection,
    page: &LetterPage,
) -> Result<Vec<ListedLetter>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT partition, topic, \"offset\", created_at, put_back_at, reason, detail, key, \
         length(value) AS value_bytes FROM dead_letter WHERE 1",
    );
    select(&mut query, selection);
    let (beyond, way) = if page.newest_first { ("<", "DESC") } else { (">", "ASC") };
    if let Some(after) = &page.after {
        query.push(format!(
            " AND (created_at, partition, topic, \"offset\") {beyond} \
             (SELECT created_at, partition, topic, \"offset\" FROM dead_letter WHERE "
        ));
        at(&mut query, after);
        query.push(")");
    }
    query.push(format!(" ORDER BY created_at {way}, partition {way}, topic {way}, \"offset\" {way} LIMIT "));
    query.push_bind(i64::from(page.limit));
    query.build().fetch_all(pool).await?.iter().map(listed).collect()
}

/// One of them, whole.
pub(super) async fn whole(pool: &SqlitePool, place: &Place) -> Result<Option<WholeLetter>, Error> {
    let mut query = QueryBuilder::new(
        "SELECT partition, topic, \"offset\", record_timestamp, created_at, put_back_at, reason, detail, key, value, \
         headers, customer_id FROM dead_letter WHERE ",
    );
    at(&mut query, place);
    let Some(row) = query.build().fetch_optional(pool).await? else { return Ok(None) };
    Ok(Some(WholeLetter {
        partition: row.try_get("partition")?,
        refused_at: Instant::from_micros(row.try_get("created_at")?),
        put_back_at: row.try_get::<Option<i64>, _>("put_back_at")?.map(Instant::from_micros),
        row: DeadLetterRow {
            topic: row.try_get("topic")?,
            offset: row.try_get("offset")?,
            timestamp: row.try_get("record_timestamp")?,
            key: row.try_get("key")?,
            value: row.try_get("value")?,
            headers: hex::headers(row.try_get("headers")?).map_err(Error::Protocol)?,
            reason: reason(row.try_get("reason")?)?,
            detail: row.try_get("detail")?,
            customer: row.try_get("customer_id")?,
        },
    }))
}

/// Notes that these were put back now.
pub(super) async fn put_back(pool: &SqlitePool, places: &[Place]) -> Result<(), Error> {
    let mut transaction = pool.begin().await?;
    for place in places {
        let mut query = QueryBuilder::new(
            "UPDATE dead_letter SET put_back_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) WHERE ",
        );
        at(&mut query, place);
        query.build().execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

fn select(query: &mut QueryBuilder<Sqlite>, selection: &LetterSelection) {
    if let Some(reason) = selection.reason {
        query.push(" AND reason = ").push_bind(reason.name());
    }
    if let Some(topic) = &selection.topic {
        // Places of a topic that was made again since are kept under `<topic>~<epoch>`.
        query.push(" AND (topic = ").push_bind(topic.clone());
        query.push(" OR substr(topic, 1, length(").push_bind(topic.clone());
        query.push(") + 1) = ").push_bind(format!("{topic}~")).push(")");
    }
    if let Some(place) = &selection.place {
        query.push(" AND ");
        at(query, place);
    }
    if let Some(customer) = selection.customer {
        query.push(" AND customer_id = ").push_bind(customer);
    }
    if let Some(from) = selection.from {
        query.push(" AND created_at >= ").push_bind(from.micros());
    }
    if let Some(until) = selection.until {
        query.push(" AND created_at < ").push_bind(until.micros());
    }
    if let Some(put_back) = selection.put_back {
        query.push(if put_back { " AND put_back_at IS NOT NULL" } else { " AND put_back_at IS NULL" });
    }
}

fn at(query: &mut QueryBuilder<Sqlite>, place: &Place) {
    query.push("partition = ").push_bind(place.partition);
    query.push(" AND topic = ").push_bind(place.topic.clone());
    query.push(" AND \"offset\" = ").push_bind(place.offset);
}

fn listed(row: &SqliteRow) -> Result<ListedLetter, Error> {
    Ok(ListedLetter {
        place: Place {
            topic: row.try_get("topic")?,
            partition: row.try_get("partition")?,
            offset: row.try_get("offset")?,
        },
        refused_at: Instant::from_micros(row.try_get("created_at")?),
        put_back_at: row.try_get::<Option<i64>, _>("put_back_at")?.map(Instant::from_micros),
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        key: row.try_get("key")?,
        value_bytes: row.try_get("value_bytes")?,
    })
}

fn reason(name: &str) -> Result<&'static str, Error> {
    let known = Reason::from_name(name).map(Reason::name);
    known.ok_or_else(|| Error::Protocol(format!("dead_letter.reason: \"{name}\"")))
}
