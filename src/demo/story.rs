//! An alert in words: "customer 17: 20 % left of 500 min, shared by 3 sites".

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Line;

/// Who shares what, as the events to be played tell.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    /// The sites of each customer.
    sites: BTreeMap<i64, BTreeSet<i64>>,
    /// The lines at each site.
    lines: BTreeMap<i64, BTreeSet<i64>>,
}

#[derive(Deserialize)]
struct Event<T> {
    data: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    customer_id: i64,
    site_id: i64,
    usage_product_inventory_id: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    customer_id: i64,
    site_id: Option<i64>,
    usage_product_inventory_id: Option<i64>,
    charging_type: String,
    by_value: bool,
    allowance: f64,
    remaining_before: f64,
    remaining_after: f64,
    threshold: Threshold,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Threshold {
    remaining_percent: Option<f64>,
    remaining: Option<f64>,
}

impl Sharers {
    /// Reads who is where out of the events.
    pub(super) fn of(lines: &[Line]) -> Sharers {
        let mut sharers = Sharers::default();
        for value in lines.iter().filter_map(|line| line.value.as_deref()) {
            if let Ok(Event { data: place }) = serde_json::from_str::<Event<Place>>(value) {
                sharers.sites.entry(place.customer_id).or_default().insert(place.site_id);
                sharers.lines.entry(place.site_id).or_default().insert(place.usage_product_inventory_id);
            }
        }
        sharers
    }

    /// An alert, for a person. Figures are rounded here: the topic has them exact.
    pub(super) fn in_words(&self, alert: &[u8]) -> String {
        let Ok(Event { data }) = serde_json::from_slice::<Event<Data>>(alert) else {
            return format!("an alert that cannot be read: {}", String::from_utf8_lossy(alert));
        };
        let share = if data.allowance > 0.0 { (100.0 * data.remaining_after / data.allowance).floor() } else { 0.0 };
        let left = match data.threshold {
            _ if data.remaining_after > 0.0 => format!("{share} % left"),
            // One commit may pass several thresholds; each says which it was.
            Threshold { remaining_percent: Some(percent), .. } if percent > 0.0 => format!("past {percent} % left"),
            Threshold { remaining: Some(at), .. } if at > 0.0 => format!("past {at} left"),
            _ => "nothing left".to_owned(),
        };
        let back = if data.remaining_after > data.remaining_before { "back up: " } else { "" };
        let customer = data.customer_id;
        format!("customer {customer}: {back}{left} of {}, {}", amount(&data), self.whose(&data))
    }

    fn whose(&self, data: &Data) -> String {
        let count = |of: Option<&BTreeSet<i64>>, one: &str| match of.map_or(0, BTreeSet::len) {
            0 | 1 => format!("of one {one}"),
            several => format!("shared by {several} {one}s"),
        };
        match (data.usage_product_inventory_id, data.site_id) {
            (Some(line), _) => format!("on line {line}"),
            (None, Some(site)) => format!("at site {site}, {}", count(self.lines.get(&site), "line")),
            (None, None) => count(self.sites.get(&data.customer_id), "site"),
        }
    }
}

/// An allowance with its unit (`domain.md section 2`).
fn amount(data: &Data) -> String {
    if data.by_value {
        return format!("{:.2} in money", data.allowance / 100.0);
    }
    match data.charging_type.as_str() {
        "DURATION" => format!("{} min", data.allowance / 60.0),
        "MB" => format!("{} MB", data.allowance),
        _ => format!("{} events", data.allowance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(more: &str) -> Vec<u8> {
        format!(
            r#"{{"data":{{"customerId":17,"chargingType":"DURATION","byValue":false,"allowance":30000,"remainingBefore":6100,"threshold":{{"remainingPercent":20}},{more}}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn alerts_are_sentences() {
        let place = |site: i64, line: i64| Line {
            key: "17".into(),
            value: Some(format!(r#"{{"data":{{"customerId":17,"siteId":{site},"usageProductInventoryId":{line}}}}}"#)),
            timestamp: 0,
            is_usage: false,
        };
        let sharers = Sharers::of(&[place(1, 11), place(1, 12), place(2, 21), place(3, 31), place(3, 31)]);
        let words = |more: &str| sharers.in_words(&alert(more));
        assert_eq!(words(r#""remainingAfter":6000"#), "customer 17: 20 % left of 500 min, shared by 3 sites");
        assert_eq!(
            words(r#""remainingAfter":0,"siteId":1"#),
            "customer 17: past 20 % left of 500 min, at site 1, shared by 2 lines"
        );
        assert_eq!(
            words(r#""remainingAfter":9000,"usageProductInventoryId":11"#),
            "customer 17: back up: 30 % left of 500 min, on line 11"
        );
    }
}
