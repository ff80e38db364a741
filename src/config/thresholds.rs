//! `alerts.thresholds`: a list of `{ remainingPercent = 20 }` or `{ remaining = 0 }` (`domain.md section 7`).

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::domain::{Quantity, Threshold};

/// What the key wants.
const WANTS: &str = "wants a list such as [{ remainingPercent = 20 }, { remaining = 0 }], each of a decimal >= 0 with at \
                     most 6 decimals";

/// The thresholds of assignments that bring no list of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(pub Vec<Threshold>);

impl Default for Thresholds {
    /// 20 % and 0 %.
    fn default() -> Thresholds {
        let percent = |units: i64| Threshold::RemainingPercent(Quantity::from_millionths(units * 1_000_000));
        Thresholds(vec![percent(20), percent(0)])
    }
}

/// A threshold as it is written: exactly one of the two.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining_percent: Option<Decimal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining: Option<Decimal>,
}

impl<'de> Deserialize<'de> for Thresholds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Thresholds, D::Error> {
        let written = Vec::<Written>::deserialize(deserializer).map_err(|_| D::Error::custom(WANTS))?;
        let thresholds = written.into_iter().map(|written| match (written.remaining_percent, written.remaining) {
            (Some(Decimal(percent)), None) => Ok(Threshold::RemainingPercent(percent)),
            (None, Some(Decimal(mark))) => Ok(Threshold::Remaining(mark)),
            _ => Err(D::Error::custom(WANTS)),
        });
        thresholds.collect::<Result<_, _>>().map(Thresholds)
    }
}

impl Serialize for Thresholds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|threshold| match threshold {
            Threshold::RemainingPercent(percent) => {
                Written { remaining_percent: Some(Decimal(*percent)), remaining: None }
            }
            Threshold::Remaining(mark) => Written { remaining_percent: None, remaining: Some(Decimal(*mark)) },
        }))
    }
}

/// An exact decimal. A number with a point reaches it as the text that stood in the file, so that no binary fraction
/// comes between.
struct Decimal(Quantity);

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        struct Exact;
        impl Visitor<'_> for Exact {
            type Value = Decimal;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a decimal")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Decimal, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
                Quantity::parse(text).map(Decimal).ok_or_else(|| E::custom("no decimal"))
            }
        }
        deserializer.deserialize_any(Exact)
    }
}

impl Serialize for Decimal {
    /// Whole numbers as numbers, all else as text: TOML's own fractions are binary ones.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.to_string();
        match text.parse::<i64>() {
            Ok(whole) => serializer.serialize_i64(whole),
            Err(_) => serializer.serialize_str(&text),
        }
    }
}
