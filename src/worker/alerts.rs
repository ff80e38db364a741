//! Alerts as CloudEvents in JSON (`domain.md section 7`).

use serde::Serialize;
use uuid::Uuid;

use super::batch::Cause;
use crate::domain::{Alert, Calendar, Instant, Level, Quantity, Threshold};

/// The largest body of an alert that names its cause, in bytes: what Kafka's topics take by default, with room for key and
/// headers. A source and an id may be nearly as large as a record, and larger as JSON.
const LARGEST: usize = 1_000_000;

/// What all alerts of a deployment have in common.
pub(super) struct Envelope<'a> {
    pub(super) store_id: Uuid,
    pub(super) source: &'a str,
    pub(super) calendar: &'a Calendar,
    pub(super) partition: i32,
    pub(super) committed_at: Instant,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: String,
    time: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    customer_id: i64,
    assignment_level: &'static str,
    assignment_id: i64,
    site_id: Option<i64>,
    usage_product_inventory_id: Option<i64>,
    inclusive_usage_plan_id: i64,
    component_id: i64,
    start_date: String,
    end_date: String,
    charging_type: &'static str,
    by_value: bool,
    allowance: Quantity,
    remaining_before: Quantity,
    remaining_after: Quantity,
    threshold: ThresholdData,
    cause: Option<CauseData<'a>>,
    committed_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum ThresholdData {
    RemainingPercent(Quantity),
    Remaining(Quantity),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CauseData<'a> {
    source: &'a str,
    id: &'a str,
    start_time: String,
}

impl Envelope<'_> {
    /// The alert with this number of its partition. One that could not be published with its cause is published without.
    pub(super) fn encode(&self, number: i64, alert: &Alert, cause: Option<Cause<'_>>) -> String {
        let body = self.body(number, alert, cause);
        if body.len() > LARGEST { self.body(number, alert, None) } else { body }
    }

    /// Its id is made of what the store knows, so that it is the same however often the alert is published.
    fn body(&self, number: i64, alert: &Alert, cause: Option<Cause<'_>>) -> String {
        let scope = |level: Level| (alert.assignment.level == level).then_some(alert.scope);
        let committed_at = self.committed_at.to_string();
        let last = Instant::from_micros(alert.window.expiry.micros() - 1);
        let event = CloudEvent {
            specversion: "1.0",
            id: format!("{}-{}-{number}", self.store_id, self.partition),
            source: self.source,
            r#type: format!("balance.threshold.{}", alert.turn.name()),
            time: committed_at.clone(),
            datacontenttype: "application/json",
            data: Data {
                customer_id: alert.customer,
                assignment_level: alert.assignment.level.name(),
                assignment_id: alert.assignment.id,
                site_id: scope(Level::Site),
                usage_product_inventory_id: scope(Level::Inventory),
                inclusive_usage_plan_id: alert.plan,
                component_id: alert.component,
                start_date: self.calendar.local_second(alert.window.start),
                end_date: self.calendar.local_second(last),
                charging_type: alert.charging_type.name(),
                by_value: alert.by_value,
                allowance: alert.allowance,
                remaining_before: alert.remaining_before,
                remaining_after: alert.remaining_after,
                threshold: match alert.threshold {
                    Threshold::RemainingPercent(percent) => ThresholdData::RemainingPercent(percent),
                    Threshold::Remaining(remaining) => ThresholdData::Remaining(remaining),
                },
                cause: cause.map(|cause| CauseData {
                    source: cause.source,
                    id: cause.id,
                    start_time: cause.start.to_string(),
                }),
                committed_at,
            },
        };
        serde_json::to_string(&event).expect("plain values always have a JSON form")
    }
}
