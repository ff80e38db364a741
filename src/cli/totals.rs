//! `headroom totals`: control totals as one JSON object (`domain.md section 9`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use headroom::config::Needs;
use headroom::domain::{ChargingType, Totals, decimal};
use headroom::service::store_options;
use headroom::store;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Failure;
use super::output::print;
use super::runtime::block_on;
use super::settings::Settings;

/// What it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Prints the totals over all partitions.
pub(super) fn run(args: Args, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    let totals = block_on(async { store::connect(&options)?.totals().await })?.map_err(anyhow::Error::from)?;
    Ok(print(&json(&totals)?)?)
}

/// The object, in the order of `domain.md`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    usage_events: UsageEvents,
    quantity: BTreeMap<&'static str, Box<RawValue>>,
    drawn: BTreeMap<&'static str, Box<RawValue>>,
    drawn_by_value: BTreeMap<&'static str, Box<RawValue>>,
    alerts: Alerts,
}

#[derive(Serialize)]
struct UsageEvents {
    counted: i64,
    held: i64,
    reversed: i64,
}

#[derive(Serialize)]
struct Alerts {
    crossed: i64,
    recovered: i64,
}

/// The totals as one line of JSON.
fn json(totals: &Totals) -> Result<String, anyhow::Error> {
    let object = Object {
        usage_events: UsageEvents { counted: totals.counted, held: totals.held, reversed: totals.reversed },
        quantity: by_charging_type(&totals.quantity)?,
        drawn: by_charging_type(&totals.drawn)?,
        drawn_by_value: by_charging_type(&totals.drawn_by_value)?,
        alerts: Alerts { crossed: totals.crossed, recovered: totals.recovered },
    };
    Ok(serde_json::to_string(&object)?)
}

fn by_charging_type(sums: &[i128; 3]) -> Result<BTreeMap<&'static str, Box<RawValue>>, serde_json::Error> {
    let named = ChargingType::ALL.into_iter().zip(sums);
    named.map(|(kind, sum)| Ok((kind.name(), RawValue::from_string(decimal(*sum))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_one_object_of_exact_decimals() {
        let totals = Totals {
            counted: 3,
            held: 2,
            reversed: 1,
            quantity: [1_500_000, 100_000_000, 0],
            drawn: [1, 0, i128::from(i64::MAX) * 1_000_000 + 10],
            drawn_by_value: [0, 250_000, 0],
            crossed: 5,
            recovered: 4,
        };
        let expected = "{\"usageEvents\":{\"counted\":3,\"held\":2,\"reversed\":1},\
                        \"quantity\":{\"DURATION\":1.5,\"MB\":100,\"ONE_OFF\":0},\
                        \"drawn\":{\"DURATION\":0.000001,\"MB\":0,\"ONE_OFF\":9223372036854775807.00001},\
                        \"drawnByValue\":{\"DURATION\":0,\"MB\":0.25,\"ONE_OFF\":0},\
                        \"alerts\":{\"crossed\":5,\"recovered\":4}}";
        assert_eq!(json(&totals).expect("JSON"), expected);
    }
}
