//! What a commit writes of customers, assignments and plans.

use sqlx::Error;
use sqlx::postgres::PgConnection;

use crate::store::Commit;
use crate::store::plans::Plans;

pub(super) async fn write(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.customers.is_empty() {
        let rows = &commit.customers;
        sqlx::query(
            "INSERT INTO customer (partition, customer_id, version, billing_cycle_id, contract_owner_id, next_slot) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int4[]) \
             ON CONFLICT (partition, customer_id) DO UPDATE SET version = excluded.version, \
             billing_cycle_id = excluded.billing_cycle_id, contract_owner_id = excluded.contract_owner_id, \
             next_slot = excluded.next_slot",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|row| row.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.fact.map(|fact| fact.0)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.fact.map(|fact| fact.1.billing_cycle)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.fact.and_then(|fact| fact.1.contract_owner)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.next_slot).collect::<Vec<i32>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.assignments.is_empty() {
        let rows = &commit.assignments;
        let facts: Vec<Option<String>> = rows.iter().map(|of| of.row.fact_text()).collect();
        let plans = || rows.iter().map(|of| of.row.assignment.as_ref().map(|assignment| &assignment.plan));
        let spans = &commit.assignment_spans;
        sqlx::query(
            "INSERT INTO assignment (partition, customer_id, level, assignment_id, version, scope, fact, from_micros, \
             until_micros, inclusive_usage_plan_id, usage_product_id, component_ids) \
             SELECT $1, customer_id, level, assignment_id, version, scope, fact, from_micros, until_micros, plan, \
             product, component_ids::int8[] FROM unnest($2::int8[], $3::int2[], $4::int8[], $5::int8[], $6::int8[], \
             $7::text[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::text[]) u(customer_id, level, \
             assignment_id, version, scope, fact, from_micros, until_micros, plan, product, component_ids) \
             ON CONFLICT (partition, customer_id, level, assignment_id) \
             DO UPDATE SET version = excluded.version, scope = excluded.scope, fact = excluded.fact, \
             from_micros = excluded.from_micros, until_micros = excluded.until_micros, \
             inclusive_usage_plan_id = excluded.inclusive_usage_plan_id, \
             usage_product_id = excluded.usage_product_id, component_ids = excluded.component_ids",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| i16::from(of.row.key.level.number())).collect::<Vec<i16>>())
        .bind(rows.iter().map(|of| of.row.key.id).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.version).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.assignment.as_ref().map(|a| a.scope)).collect::<Vec<Option<i64>>>())
        .bind(facts)
        .bind(spans.iter().map(|span| span.map(|span| span.0.micros())).collect::<Vec<Option<i64>>>())
        .bind(spans.iter().map(|span| span.map(|span| span.1.micros())).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.map(|plan| plan.id)).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.and_then(|plan| plan.product)).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.map(|plan| format!("{{{}}}", plan.component_ids()))).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    write_plans(connection, commit).await
}

async fn write_plans(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    let Plans { customers, components } = Plans::of(commit);
    for (pairs, statement) in [
        (
            customers,
            "INSERT INTO plan_customer (partition, inclusive_usage_plan_id, customer_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[]) ON CONFLICT DO NOTHING",
        ),
        (
            components,
            "INSERT INTO component_plan (partition, component_id, inclusive_usage_plan_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[]) ON CONFLICT DO NOTHING",
        ),
    ] {
        if pairs.is_empty() {
            continue;
        }
        let (firsts, seconds): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
        sqlx::query(statement).bind(commit.partition).bind(firsts).bind(seconds).execute(&mut *connection).await?;
    }
    Ok(())
}
