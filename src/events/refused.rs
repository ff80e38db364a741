//! Whom a refused record is about, as far as that can be told: for whoever looks for a customer's dead letters.

use serde_json::Value;

use super::Record;

/// The customer that the record's data names, else the one that its key does; nobody for a bill run, whose key is its own
/// id.
pub fn customer_of<'a, H>(record: &Record<'a, H>) -> Option<i64>
where
    H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
{
    let value: Option<Value> = record.value.and_then(|value| serde_json::from_slice(value).ok());
    let header = record.headers.clone().find(|(name, _)| name.eq_ignore_ascii_case("ce_type"));
    let kind_in_header = header.and_then(|(_, kind)| std::str::from_utf8(kind?).ok());
    let kind = kind_in_header.or_else(|| value.as_ref()?.get("type")?.as_str()).unwrap_or_default();
    if kind.starts_with("bill-run.") {
        return None;
    }
    let data = if header.is_some() { value.as_ref() } else { value.as_ref().and_then(|value| value.get("data")) };
    let named = data.and_then(|data| data.get("customerId")?.as_i64());
    named.or_else(|| std::str::from_utf8(record.key?).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(key: Option<&str>, value: Option<&str>, kind: Option<&str>) -> Option<i64> {
        let headers: Vec<(&str, Option<&[u8]>)> =
            kind.map(|kind| ("ce_type", Some(kind.as_bytes()))).into_iter().collect();
        customer_of(&Record {
            partition: 0,
            timestamp: None,
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
            headers: headers.iter().copied(),
        })
    }

    #[test]
    fn the_data_tells_before_the_key_and_a_bill_run_is_nobodys() {
        let structured = |kind: &str| format!("{{\"type\":\"{kind}\",\"data\":{{\"customerId\":17}}}}");
        assert_eq!(customer(Some("18"), Some(&structured("usage.recorded")), None), Some(17));
        assert_eq!(customer(Some("18"), Some("{\"customerId\":17}"), Some("usage.recorded")), Some(17));
        assert_eq!(customer(Some("18"), Some("{\"customerId\":\"x\"}"), Some("usage.recorded")), Some(18));
        assert_eq!(customer(Some("18"), Some("no JSON"), None), Some(18));
        assert_eq!(customer(Some("x"), None, None), None);
        assert_eq!(customer(Some("18"), Some("{\"type\":\"bill-run.changed\",\"data\":{}}"), None), None);
        assert_eq!(customer(Some("18"), Some("{}"), Some("bill-run.changed")), None);
    }
}
