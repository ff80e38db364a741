//! Everything that is written to SQLite.

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Error, Sqlite, Transaction};
use uuid::Uuid;

use super::read::key_bytes;
use super::{behind, repair};
use crate::domain::{Instant, RunFact, StoredPart, StoredRow};
use crate::store::plans::Plans;
use crate::store::{Commit, OfCustomer, Published, Settled, hex};

/// Begins a transaction that may write from its first statement on, so that it never has to give way to another.
pub(super) async fn begin(pool: &SqlitePool) -> Result<Transaction<'static, Sqlite>, Error> {
    pool.begin_with("BEGIN IMMEDIATE").await
}

/// Settles what can never change later, unless it is settled, and makes the rows of each partition.
pub(super) async fn settle(pool: &SqlitePool, settled: &Settled) -> Result<(), Error> {
    let mut transaction = begin(pool).await?;
    sqlx::query(
        "UPDATE deployment SET partitions = ?, partitioner = ?, time_zone = ? WHERE id = 1 AND partitions IS NULL",
    )
    .bind(settled.partitions)
    .bind(settled.partitioner.name())
    .bind(&settled.time_zone)
    .execute(&mut *transaction)
    .await?;
    let partitions: i32 =
        sqlx::query_scalar("SELECT partitions FROM deployment WHERE id = 1").fetch_one(&mut *transaction).await?;
    for partition in 0..partitions {
        sqlx::query(
            "INSERT INTO progress (partition, epoch, usage_offset, assignments_offset, outbox_number) \
             VALUES (?, 0, 0, 0, 0) ON CONFLICT DO NOTHING",
        )
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Writes a commit, all of it or nothing; false when the partition has another owner.
pub(super) async fn commit(pool: &SqlitePool, commit: &Commit) -> Result<bool, Error> {
    let mut transaction = begin(pool).await?;
    let totals = &commit.totals;
    let sums = |sums: &[i128; 3]| sums.map(|sum| sum.to_string()).join(",");
    let moved = sqlx::query(
        // SQLite's max of a null and anything is null.
        "UPDATE progress SET commits = commits + 1, usage_offset = ?4, assignments_offset = ?5, outbox_number = ?6, \
         applied_at = coalesce(max(applied_at, ?7), ?7, applied_at), \
         facts_at = coalesce(max(facts_at, ?8), ?8, facts_at), runs_at = coalesce(max(runs_at, ?9), ?9, runs_at), \
         counted = ?10, held = ?11, reversed = ?12, crossed = ?13, recovered = ?14, \
         quantity = ?15, drawn = ?16, drawn_by_value = ?17 \
         WHERE partition = ?1 AND epoch = ?2 AND commits = ?3",
    )
    .bind(commit.partition)
    .bind(commit.epoch)
    .bind(commit.commits)
    .bind(commit.next.usage)
    .bind(commit.next.assignments)
    .bind(commit.outbox_number)
    .bind(commit.applied_at.map(Instant::micros))
    .bind(commit.facts_at.map(Instant::micros))
    .bind(commit.runs_at.map(Instant::micros))
    .bind(totals.counted)
    .bind(totals.held)
    .bind(totals.reversed)
    .bind(totals.crossed)
    .bind(totals.recovered)
    .bind(sums(&totals.quantity))
    .bind(sums(&totals.drawn))
    .bind(sums(&totals.drawn_by_value))
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() != 1 {
        return Ok(false);
    }
    usage(&mut transaction, commit).await?;
    facts(&mut transaction, commit).await?;
    buckets(&mut transaction, commit).await?;
    rest(&mut transaction, commit).await?;
    behind::write(&mut transaction, commit).await?;
    if let Some((request, repaired)) = &commit.repaired {
        repair::answer(&mut transaction, request, repaired).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

async fn usage(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for usage in &commit.usage {
        sqlx::query(
            "INSERT INTO ledger (partition, customer_id, start_time, event_key, source, state, body, draws) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(usage.key.customer)
        .bind(usage.key.position.start.micros())
        .bind(key_bytes(usage.key.position.key))
        .bind(usage.source)
        .bind(usage.state.number())
        .bind(&commit.bytes[usage.body.start as usize..usage.body.end as usize])
        .bind(&commit.bytes[usage.draws.start as usize..usage.draws.end as usize])
        .execute(&mut *connection)
        .await?;
    }
    for OfCustomer { customer, row } in &commit.usage_changes {
        sqlx::query(
            "UPDATE ledger SET state = ?, draws = ? \
             WHERE partition = ? AND customer_id = ? AND start_time = ? AND event_key = ?",
        )
        .bind(row.state.number())
        .bind(&row.draws)
        .bind(commit.partition)
        .bind(customer)
        .bind(row.position.start.micros())
        .bind(key_bytes(row.position.key))
        .execute(&mut *connection)
        .await?;
    }
    for reversal in &commit.reversals {
        sqlx::query(
            "INSERT INTO reversal (partition, customer_id, start_time, event_key, pending) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET pending = excluded.pending",
        )
        .bind(commit.partition)
        .bind(reversal.key.customer)
        .bind(reversal.key.position.start.micros())
        .bind(key_bytes(reversal.key.position.key))
        .bind(reversal.pending)
        .execute(&mut *connection)
        .await?;
    }
    for (number, source) in &commit.sources {
        sqlx::query("INSERT INTO source (partition, number, source) VALUES (?, ?, ?)")
            .bind(commit.partition)
            .bind(number)
            .bind(source.as_bytes())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn facts(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for row in &commit.customers {
        sqlx::query(
            "INSERT OR REPLACE INTO customer (partition, customer_id, version, billing_cycle_id, contract_owner_id, \
             next_slot) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(row.customer)
        .bind(row.fact.map(|fact| fact.0))
        .bind(row.fact.map(|fact| fact.1.billing_cycle))
        .bind(row.fact.and_then(|fact| fact.1.contract_owner))
        .bind(row.next_slot)
        .execute(&mut *connection)
        .await?;
    }
    for (of, span) in commit.assignments.iter().zip(&commit.assignment_spans) {
        let plan = of.row.assignment.as_ref().map(|assignment| &assignment.plan);
        sqlx::query(
            "INSERT OR REPLACE INTO assignment (partition, customer_id, level, assignment_id, version, scope, fact, \
             from_micros, until_micros, inclusive_usage_plan_id, usage_product_id, component_ids) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(of.customer)
        .bind(of.row.key.level.number())
        .bind(of.row.key.id)
        .bind(of.row.version)
        .bind(of.row.assignment.as_ref().map(|assignment| assignment.scope))
        .bind(of.row.fact_text())
        .bind(span.map(|span| span.0.micros()))
        .bind(span.map(|span| span.1.micros()))
        .bind(plan.map(|plan| plan.id))
        .bind(plan.and_then(|plan| plan.product))
        .bind(plan.map(|plan| format!("[{}]", plan.component_ids())))
        .execute(&mut *connection)
        .await?;
    }
    let Plans { customers, components } = Plans::of(commit);
    for (plan, customer) in customers {
        sqlx::query(
            "INSERT OR IGNORE INTO plan_customer (partition, inclusive_usage_plan_id, customer_id) VALUES (?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(plan)
        .bind(customer)
        .execute(&mut *connection)
        .await?;
    }
    for (component, plan) in components {
        sqlx::query(
            "INSERT OR IGNORE INTO component_plan (partition, component_id, inclusive_usage_plan_id) VALUES (?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(component)
        .bind(plan)
        .execute(&mut *connection)
        .await?;
    }
    for of in commit.new_lines.iter().chain(&commit.changed_lines) {
        let (fact, last) = (of.row.fact, of.row.last_usage);
        sqlx::query(
            "INSERT OR REPLACE INTO line (partition, customer_id, usage_product_inventory_id, version, site_id, \
             usage_product_id, last_start_time, last_event_key, last_site_id, last_usage_product_id) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(of.customer)
        .bind(of.row.upi)
        .bind(fact.map(|fact| fact.0))
        .bind(fact.map(|fact| fact.1.site))
        .bind(fact.map(|fact| fact.1.product))
        .bind(last.map(|last| last.position.start.micros()))
        .bind(last.map(|last| key_bytes(last.position.key)))
        .bind(last.map(|last| last.site))
        .bind(last.map(|last| last.product))
        .execute(&mut *connection)
        .await?;
    }
    for (customer, upi) in &commit.removed_lines {
        sqlx::query("DELETE FROM line WHERE partition = ? AND customer_id = ? AND usage_product_inventory_id = ?")
            .bind(commit.partition)
            .bind(customer)
            .bind(upi)
            .execute(&mut *connection)
            .await?;
    }
    standing(connection, commit).await?;
    for row in &commit.bill_runs {
        let run = &row.run;
        sqlx::query(
            "INSERT INTO bill_run (partition, bill_run_id, version, billing_cycle_id, period_start_date, \
             period_end_date, usage_from_date, usage_until_date, status, storing_after, letting_in_after) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET version = excluded.version, billing_cycle_id = excluded.billing_cycle_id, \
             period_start_date = excluded.period_start_date, period_end_date = excluded.period_end_date, \
             usage_from_date = excluded.usage_from_date, usage_until_date = excluded.usage_until_date, \
             status = excluded.status, storing_after = excluded.storing_after, letting_in_after = excluded.letting_in_after",
        )
        .bind(commit.partition)
        .bind(run.id)
        .bind(row.version)
        .bind(run.billing_cycle)
        .bind(run.period_start.days())
        .bind(run.period_end.days())
        .bind(run.usage_from.days())
        .bind(run.usage_until.days())
        .bind(run.status.number())
        .bind(row.storing)
        .bind(row.letting_in)
        .execute(&mut *connection)
        .await?;
    }
    run_fact(connection, commit).await?;
    stored(connection, commit).await
}

/// What other partitions are to apply too.
async fn run_fact(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    if let Some(RunFact { version, run }) = &commit.run_fact {
        sqlx::query(
            "INSERT INTO bill_run_fact (partition, number, bill_run_id, version, billing_cycle_id, period_start_date, period_end_date, \
             usage_from_date, usage_until_date, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(commit.commits + 1)
        .bind(run.id)
        .bind(version)
        .bind(run.billing_cycle)
        .bind(run.period_start.days())
        .bind(run.period_end.days())
        .bind(run.usage_from.days())
        .bind(run.usage_until.days())
        .bind(run.status.number())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Where lines stand.
async fn standing(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for customer in &commit.standing_anew {
        sqlx::query("DELETE FROM standing_row WHERE partition = ? AND customer_id = ?")
            .bind(commit.partition)
            .bind(customer)
            .execute(&mut *connection)
            .await?;
    }
    for (customer, upi, from) in &commit.removed_standing {
        sqlx::query(
            "DELETE FROM standing_row WHERE partition = ? AND customer_id = ? AND usage_product_inventory_id = ? \
             AND from_micros = ?",
        )
        .bind(commit.partition)
        .bind(customer)
        .bind(upi)
        .bind(from.micros())
        .execute(&mut *connection)
        .await?;
    }
    for of in &commit.standing {
        sqlx::query(
            "INSERT OR REPLACE INTO standing_row (partition, customer_id, usage_product_inventory_id, from_micros, \
             until_micros, after_micros, billing_cycle_id, site_id, usage_product_id, contract_owner_id) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(of.customer)
        .bind(of.row.upi)
        .bind(of.row.from.micros())
        .bind(of.row.until.micros())
        .bind(of.row.after.map(Instant::micros))
        .bind(of.row.cycle)
        .bind(of.row.site)
        .bind(of.row.product)
        .bind(of.row.contract_owner)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The rows of closing bill runs, and what goes with them.
async fn stored(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    let gone =
        commit.reopened_runs.iter().map(|run| ("DELETE FROM stored_row WHERE partition = ? AND bill_run_id = ?", run));
    let ended = commit.reopened_runs.iter().chain(&commit.stored_runs);
    let ended = ended.map(|run| ("DELETE FROM stored_ahead WHERE partition = ? AND bill_run_id = ?", run));
    for (statement, run) in gone.chain(ended) {
        sqlx::query(statement).bind(commit.partition).bind(run).execute(&mut *connection).await?;
    }
    let list = |row: &StoredRow, pick: fn(&StoredPart) -> i64| {
        let ids: Vec<String> = row.parts.iter().map(|part| pick(part).to_string()).collect();
        format!("[{}]", ids.join(","))
    };
    for row in &commit.stored_rows {
        sqlx::query(
            "INSERT INTO stored_row (partition, bill_run_id, customer_id, usage_product_inventory_id, site_id, \
             contract_owner_id, period_start_date, period_end_date, entries, assignment_ids, inclusive_usage_plan_ids, \
             component_ids) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(row.bill_run)
        .bind(row.customer)
        .bind(row.upi)
        .bind(row.site)
        .bind(row.contract_owner)
        .bind(row.period_start.days())
        .bind(row.period_end.days())
        .bind(&row.entries)
        .bind(list(row, |part| part.assignment))
        .bind(list(row, |part| part.plan))
        .bind(list(row, |part| part.component))
        .execute(&mut *connection)
        .await?;
    }
    for ahead in &commit.stored_ahead {
        sqlx::query("INSERT INTO stored_ahead (partition, bill_run_id, customer_id) VALUES (?, ?, ?)")
            .bind(commit.partition)
            .bind(ahead.bill_run)
            .bind(ahead.customer)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn buckets(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for of in commit.new_buckets.iter().chain(&commit.changed_buckets) {
        let row = &of.row;
        sqlx::query(
            "INSERT OR REPLACE INTO bucket (partition, customer_id, slot, level, assignment_id, component_id, \
             window_start, charging_type, by_value, allowance, remaining, mark_start_time, mark_event_key) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(of.customer)
        .bind(row.slot)
        .bind(row.assignment.level.number())
        .bind(row.assignment.id)
        .bind(row.component)
        .bind(row.window_start.micros())
        .bind(row.charging_type.number())
        .bind(row.by_value)
        .bind(row.allowance.millionths())
        .bind(row.remaining.millionths())
        .bind(row.mark.map(|mark| mark.start.micros()))
        .bind(row.mark.map(|mark| key_bytes(mark.key)))
        .execute(&mut *connection)
        .await?;
    }
    for (customer, slot) in &commit.removed_buckets {
        sqlx::query("DELETE FROM bucket WHERE partition = ? AND customer_id = ? AND slot = ?")
            .bind(commit.partition)
            .bind(customer)
            .bind(slot)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn rest(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Error> {
    for alert in &commit.alerts {
        sqlx::query("INSERT INTO outbox (partition, number, customer_id, body) VALUES (?, ?, ?, ?)")
            .bind(commit.partition)
            .bind(alert.number)
            .bind(alert.customer)
            .bind(&alert.body)
            .execute(&mut *connection)
            .await?;
    }
    for letter in &commit.dead_letters {
        sqlx::query(
            "INSERT INTO dead_letter (partition, topic, \"offset\", record_timestamp, reason, detail, key, value, \
             headers, customer_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(commit.partition)
        .bind(&letter.topic)
        .bind(letter.offset)
        .bind(letter.timestamp)
        .bind(letter.reason)
        .bind(&letter.detail)
        .bind(letter.key.as_deref())
        .bind(letter.value.as_deref())
        .bind(hex::headers_text(&letter.headers))
        .bind(letter.customer)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Takes or keeps the relay's lease; false while another holds it.
pub(super) async fn lease(pool: &SqlitePool, holder: Uuid, seconds: u32) -> Result<bool, Error> {
    let taken = sqlx::query(
        "INSERT INTO relay_lease (id, holder, until) VALUES (1, ?, unixepoch() + ?) \
         ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until \
         WHERE holder = excluded.holder OR until < unixepoch()",
    )
    .bind(holder)
    .bind(seconds)
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Notes what is on the alerts topic, never less than was noted before, and lets those alerts leave the outbox.
pub(super) async fn published(pool: &SqlitePool, published: &Published) -> Result<bool, Error> {
    let mut transaction = begin(pool).await?;
    for (known, before) in published.moves() {
        let statement = match before {
            None => "INSERT INTO relay_offset (partition, next_offset) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            Some(_) => "UPDATE relay_offset SET next_offset = ?2 WHERE partition = ?1 AND next_offset = ?3",
        };
        let moving = sqlx::query(statement).bind(known.partition).bind(known.next);
        let moving = if before.is_some() { moving.bind(before) } else { moving };
        if moving.execute(&mut *transaction).await?.rows_affected() != 1 {
            return Ok(false);
        }
    }
    for known in &published.numbers {
        sqlx::query(
            "INSERT INTO relay_number (partition, number) VALUES (?, ?) \
             ON CONFLICT DO UPDATE SET number = max(number, excluded.number)",
        )
        .bind(known.partition)
        .bind(known.value)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM outbox WHERE partition = ? AND number <= ?")
            .bind(known.partition)
            .bind(known.value)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}
