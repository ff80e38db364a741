//! Accounts as a worker reads them, many at once: one query for each table, for buckets one for all of an account and one for
//! those since some time.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use rustc_hash::FxHashMap;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Error, Row};

use super::load::numbered;
use super::types::{FIRST, Timestamp, position};
use crate::domain::{
    AccountImage, Assignment, AssignmentKey, AssignmentRow, BucketRow, ChargingType, CustomerFact, Instant, Inventory,
    LastUsage, Level, LineRow, Quantity,
};
use crate::store::Wanted;

/// Accounts by customer, while their parts are read.
type Images = BTreeMap<i64, AccountImage>;

/// The accounts of those customers that are known.
pub(super) async fn accounts(
    connection: &mut PgConnection,
    partition: i32,
    wanted: &[Wanted],
) -> Result<Vec<AccountImage>, Error> {
    let since: FxHashMap<i64, Instant> =
        wanted.iter().filter_map(|wanted| Some((wanted.customer, wanted.since?))).collect();
    let mut rows = sqlx::query(
        "SELECT c.customer_id, c.version, c.billing_cycle_id, c.contract_owner_id, c.next_slot, \
         (SELECT l.start_time FROM ledger l WHERE l.partition = $1 AND l.customer_id = c.customer_id \
          ORDER BY l.partition DESC, l.customer_id DESC, l.start_time DESC LIMIT 1) latest_usage, \
         (SELECT b.slot FROM bucket b WHERE b.partition = $1 AND b.customer_id = c.customer_id \
          ORDER BY b.partition DESC, b.customer_id DESC, b.slot DESC LIMIT 1) last_slot \
         FROM customer c WHERE c.partition = $1 AND c.customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(wanted.iter().map(|wanted| wanted.customer).collect::<Vec<i64>>())
    .fetch(&mut *connection);
    let mut images = Images::new();
    while let Some(row) = rows.try_next().await? {
        let mut image = customer(&row)?;
        image.since = since.get(&image.customer).copied();
        if image.since.is_some() {
            image.slots_are_given_up_to(row.try_get("last_slot")?);
        }
        images.insert(image.customer, image);
    }
    drop(rows);
    add_parts(connection, partition, &mut images).await?;
    Ok(images.into_values().collect())
}

/// A customer's own row; `latest_usage` is asked for where a worker needs it.
pub(super) fn customer(row: &PgRow) -> Result<AccountImage, Error> {
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => Some((
            version,
            CustomerFact {
                billing_cycle: row.try_get("billing_cycle_id")?,
                contract_owner: row.try_get("contract_owner_id")?,
            },
        )),
    };
    Ok(AccountImage {
        customer: row.try_get("customer_id")?,
        fact,
        next_slot: row.try_get("next_slot")?,
        latest_usage: row.try_get::<Option<Timestamp>, _>("latest_usage")?.map(|latest| latest.0),
        ..AccountImage::default()
    })
}

/// Adds assignments, lines, buckets and pending reversals to the accounts of a partition.
async fn add_parts(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let customers: Vec<i64> = images.keys().copied().collect();
    let mut rows = sqlx::query(
        "SELECT customer_id, level, assignment_id, version, fact FROM assignment \
         WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.assignments.push(assignment(&row)?);
    }
    drop(rows);
    let mut rows = sqlx::query(
        "SELECT customer_id, usage_product_inventory_id, version, site_id, usage_product_id, last_start_time, \
         last_event_key, last_site_id, last_usage_product_id FROM line WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.lines.push(line(&row)?);
    }
    drop(rows);
    add_buckets(connection, partition, images).await?;
    let mut rows = sqlx::query(
        "SELECT customer_id, start_time, event_key FROM reversal \
         WHERE partition = $1 AND customer_id = ANY($2) AND pending",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let reversed = position(row.try_get("start_time")?, row.try_get("event_key")?);
        image(images, &row)?.pending_reversals.push(reversed);
    }
    Ok(())
}

/// Adds all buckets of those accounts that are wanted whole.
async fn add_buckets(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let whole: Vec<i64> = images.values().filter(|image| image.since.is_none()).map(|image| image.customer).collect();
    if whole.len() < images.len() {
        add_buckets_since(connection, partition, images).await?;
    }
    if whole.is_empty() {
        return Ok(());
    }
    let mut rows = sqlx::query(
        "SELECT customer_id, slot, level, assignment_id, component_id, window_start, charging_type, by_value, \
         allowance, remaining, mark_start_time, mark_event_key FROM bucket \
         WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(whole)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.buckets.push(bucket(&row)?);
    }
    Ok(())
}

/// Adds to the others, whose assignments are there, the buckets that may be drawn from since when they are wanted.
async fn add_buckets_since(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let (mut customers, mut levels, mut ids, mut starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for image in images.values() {
        let Some(since) = image.since else { continue };
        for row in &image.assignments {
            let Some(start) = row.assignment.as_ref().and_then(|assignment| assignment.starts_from(since)) else {
                continue;
            };
            customers.push(image.customer);
            levels.push(i16::from(row.key.level.number()));
            ids.push(row.key.id);
            starts.push(Timestamp(start.max(FIRST)));
        }
    }
    // The order makes a plan of any time, even one of an empty table, look into the index of that order.
    let mut rows = sqlx::query(
        "SELECT b.* FROM unnest($2::int8[], $3::int2[], $4::int8[], $5::timestamptz[]) \
         k(customer_id, level, assignment_id, start) CROSS JOIN LATERAL (SELECT customer_id, slot, level, assignment_id, \
         component_id, window_start, charging_type, by_value, allowance, remaining, mark_start_time, mark_event_key \
         FROM bucket b WHERE b.partition = $1 AND b.customer_id = k.customer_id AND b.level = k.level \
         AND b.assignment_id = k.assignment_id AND b.window_start >= k.start \
         ORDER BY b.partition, b.customer_id, b.level, b.assignment_id, b.window_start) b",
    )
    .bind(partition)
    .bind(customers)
    .bind(levels)
    .bind(ids)
    .bind(starts)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.buckets.push(bucket(&row)?);
    }
    Ok(())
}

fn image<'a>(images: &'a mut Images, row: &PgRow) -> Result<&'a mut AccountImage, Error> {
    let customer: i64 = row.try_get("customer_id")?;
    images.get_mut(&customer).ok_or_else(|| Error::Protocol(format!("customer {customer} has no row of its own")))
}

fn assignment(row: &PgRow) -> Result<AssignmentRow, Error> {
    let fact: Option<&str> = row.try_get("fact")?;
    let assignment: Option<Assignment> =
        fact.map(serde_json::from_str).transpose().map_err(|error| Error::Decode(error.into()))?;
    let level = numbered(&Level::ALL, row.try_get("level")?, "assignment.level")?;
    Ok(AssignmentRow {
        key: AssignmentKey { level, id: row.try_get("assignment_id")? },
        version: row.try_get("version")?,
        assignment,
    })
}

fn line(row: &PgRow) -> Result<LineRow, Error> {
    let upi = row.try_get("usage_product_inventory_id")?;
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => {
            let (site, product) = (row.try_get("site_id")?, row.try_get("usage_product_id")?);
            Some((version, Inventory { upi, site, product }))
        }
    };
    let last_usage = match row.try_get::<Option<Timestamp>, _>("last_start_time")? {
        None => None,
        Some(start) => Some(LastUsage {
            position: position(start, row.try_get("last_event_key")?),
            site: row.try_get("last_site_id")?,
            product: row.try_get("last_usage_product_id")?,
        }),
    };
    Ok(LineRow { upi, fact, last_usage })
}

fn bucket(row: &PgRow) -> Result<BucketRow, Error> {
    let mark = match row.try_get::<Option<Timestamp>, _>("mark_start_time")? {
        None => None,
        Some(start) => Some(position(start, row.try_get("mark_event_key")?)),
    };
    let level = numbered(&Level::ALL, row.try_get("level")?, "bucket.level")?;
    Ok(BucketRow {
        slot: row.try_get("slot")?,
        assignment: AssignmentKey { level, id: row.try_get("assignment_id")? },
        component: row.try_get("component_id")?,
        window_start: row.try_get::<Timestamp, _>("window_start")?.0,
        charging_type: numbered(&ChargingType::ALL, row.try_get("charging_type")?, "bucket.charging_type")?,
        by_value: row.try_get("by_value")?,
        // Less than nothing only somebody else wrote there; the audit tells of it.
        allowance: Quantity::from_millionths(row.try_get::<i64, _>("allowance")?.max(0)),
        remaining: Quantity::from_millionths(row.try_get::<i64, _>("remaining")?.max(0)),
        mark,
    })
}
