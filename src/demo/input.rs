//! A user's own events from a file: lines of `{"key", "value", "timestamp"}`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DemoError, Line};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    key: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    timestamp: Option<i64>,
}

/// What decides about the topic.
#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

/// Reads a whole file. A value is a CloudEvent, as an object or as the text of one; a line without a timestamp is of
/// now; blank lines are passed over.
pub(super) fn read(file: &Path) -> Result<Vec<Line>, DemoError> {
    let fault = |place: String, why: String| DemoError::Input { file: file.display().to_string(), place, why };
    let opened = std::fs::File::open(file).map_err(|error| fault(String::new(), error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut lines = Vec::new();
    for (number, text) in BufReader::new(opened).lines().enumerate() {
        let text = text.map_err(|error| fault(format!(" line {}", number + 1), error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let line = parse(&text, now).map_err(|error| {
            let why =
                format!("{error}; a line is {{\"key\": text, \"value\": CloudEvent, \"timestamp\": milliseconds}}");
            fault(format!(" line {}", number + 1), why)
        })?;
        lines.push(line);
    }
    Ok(lines)
}

fn parse(text: &str, now: i64) -> Result<Line, serde_json::Error> {
    let row: Row<'_> = serde_json::from_str(text)?;
    let value = match row.value.map(RawValue::get) {
        None | Some("null") => None,
        Some(text) if text.starts_with('"') => Some(serde_json::from_str(text)?),
        Some(object) => Some(object.to_owned()),
    };
    let kind: Option<Kind> = value.as_deref().and_then(|value| serde_json::from_str(value).ok());
    let is_usage = kind.is_some_and(|kind| kind.r#type.starts_with("usage."));
    Ok(Line { key: row.key, value, timestamp: row.timestamp.unwrap_or(now), is_usage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_an_object_or_its_text_and_keeps_its_digits() {
        let of = |text: &str| parse(text, 5).expect("a line");
        let line = of(r#"{"key":"1","value":{"type":"usage.recorded","q":0.10},"timestamp":7}"#);
        assert_eq!(line.value.as_deref(), Some(r#"{"type":"usage.recorded","q":0.10}"#));
        assert!(line.is_usage);
        assert_eq!(line.timestamp, 7);
        let line = of(r#"{"key":"1","value":"{\"type\":\"inventory.changed\"}"}"#);
        assert_eq!(line.value.as_deref(), Some(r#"{"type":"inventory.changed"}"#));
        assert!(!line.is_usage);
        assert_eq!(line.timestamp, 5);
        assert_eq!(of(r#"{"key":"1","value":null}"#).value, None);
        assert!(parse(r#"{"value":null}"#, 5).is_err(), "a line without a key");
    }
}
