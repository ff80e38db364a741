//! Repairs that are asked for, and their answers.

use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{Error, Row};

use crate::store::{RepairRequest, Repaired};

pub(super) async fn request(pool: &PgPool, request: &RepairRequest) -> Result<(), Error> {
    sqlx::query("INSERT INTO repair_request (partition, request_id, customer_id) VALUES ($1, $2, $3)")
        .bind(request.partition)
        .bind(request.id)
        .bind(request.customer)
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn requests(pool: &PgPool) -> Result<Vec<RepairRequest>, Error> {
    let open = "SELECT partition, request_id, customer_id FROM repair_request WHERE buckets IS NULL";
    let rows = sqlx::query(open).fetch_all(pool).await?;
    rows.iter()
        .map(|row: &PgRow| {
            Ok(RepairRequest {
                id: row.try_get("request_id")?,
                partition: row.try_get("partition")?,
                customer: row.try_get("customer_id")?,
            })
        })
        .collect()
}

pub(super) async fn done(pool: &PgPool, request: &RepairRequest) -> Result<Option<Repaired>, Error> {
    let row = sqlx::query(
        "SELECT buckets, usage, lines FROM repair_request \
         WHERE partition = $1 AND request_id = $2 AND buckets IS NOT NULL",
    )
    .bind(request.partition)
    .bind(request.id)
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        Ok(Repaired { buckets: row.try_get("buckets")?, usage: row.try_get("usage")?, lines: row.try_get("lines")? })
    })
    .transpose()
}

/// Answers a request, within the commit that carries it out.
pub(super) async fn answer(
    connection: &mut PgConnection,
    request: &RepairRequest,
    repaired: &Repaired,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE repair_request SET buckets = $3, usage = $4, lines = $5 WHERE partition = $1 AND request_id = $2",
    )
    .bind(request.partition)
    .bind(request.id)
    .bind(repaired.buckets)
    .bind(repaired.usage)
    .bind(repaired.lines)
    .execute(connection)
    .await?;
    Ok(())
}
