//! What a commit writes of buckets.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Error, Postgres};
use uuid::Uuid;

use super::super::types::{Timestamp, uuid_of};
use crate::domain::BucketRow;
use crate::store::{Commit, OfCustomer};

pub(super) async fn write(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.changed_buckets.is_empty() {
        let query = sqlx::query(
            "UPDATE bucket b SET allowance = u.allowance, remaining = u.remaining, charging_type = u.charging_type, \
             by_value = u.by_value, mark_start_time = u.mark_start_time, mark_event_key = u.mark_event_key \
             FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::timestamptz[], $7::uuid[], $8::int2[], \
             $9::bool[]) u(customer_id, slot, allowance, remaining, mark_start_time, mark_event_key, charging_type, \
             by_value) WHERE b.partition = $1 AND b.customer_id = u.customer_id AND b.slot = u.slot",
        );
        bind_state(query.bind(commit.partition), &commit.changed_buckets).execute(&mut *connection).await?;
    }
    if !commit.new_buckets.is_empty() {
        let rows = &commit.new_buckets;
        let query = sqlx::query(
            "INSERT INTO bucket (partition, customer_id, slot, allowance, remaining, mark_start_time, mark_event_key, \
             charging_type, by_value, level, assignment_id, component_id, window_start) \
             SELECT $1, * FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::timestamptz[], $7::uuid[], \
             $8::int2[], $9::bool[], $10::int2[], $11::int8[], $12::int8[], $13::timestamptz[])",
        );
        bind_state(query.bind(commit.partition), rows)
            .bind(rows.iter().map(|of| i16::from(of.row.assignment.level.number())).collect::<Vec<i16>>())
            .bind(rows.iter().map(|of| of.row.assignment.id).collect::<Vec<i64>>())
            .bind(rows.iter().map(|of| of.row.component).collect::<Vec<i64>>())
            .bind(rows.iter().map(|of| Timestamp(of.row.window_start)).collect::<Vec<Timestamp>>())
            .execute(&mut *connection)
            .await?;
    }
    if !commit.removed_buckets.is_empty() {
        sqlx::query(
            "DELETE FROM bucket b USING unnest($2::int8[], $3::int4[]) g(customer_id, slot) \
             WHERE b.partition = $1 AND b.customer_id = g.customer_id AND b.slot = g.slot",
        )
        .bind(commit.partition)
        .bind(commit.removed_buckets.iter().map(|bucket| bucket.0).collect::<Vec<i64>>())
        .bind(commit.removed_buckets.iter().map(|bucket| bucket.1).collect::<Vec<i32>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Binds what changes of buckets: customers, slots, allowances, remainings, marks, and how they are counted.
fn bind_state<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &[OfCustomer<BucketRow>],
) -> Query<'q, Postgres, PgArguments> {
    let marks = || rows.iter().map(|of| of.row.mark);
    query
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.slot).collect::<Vec<i32>>())
        .bind(rows.iter().map(|of| of.row.allowance.millionths()).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.remaining.millionths()).collect::<Vec<i64>>())
        .bind(marks().map(|mark| mark.map(|mark| Timestamp(mark.start))).collect::<Vec<Option<Timestamp>>>())
        .bind(marks().map(|mark| mark.map(|mark| uuid_of(mark.key))).collect::<Vec<Option<Uuid>>>())
        .bind(rows.iter().map(|of| i16::from(of.row.charging_type.number())).collect::<Vec<i16>>())
        .bind(rows.iter().map(|of| of.row.by_value).collect::<Vec<bool>>())
}
