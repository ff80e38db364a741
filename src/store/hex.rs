//! Headers of dead letters as text: JSON pairs of a name and its value in hexadecimal, since a value may be any bytes.

use std::fmt::Write;

/// Headers in their order; a header without a value has null.
pub(super) fn headers_text(headers: &[(String, Option<Vec<u8>>)]) -> String {
    let pairs: Vec<(&str, Option<String>)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().map(hexadecimal))).collect();
    // NUL is no character of a PostgreSQL text, but JSON escapes it.
    serde_json::to_string(&pairs).expect("texts always have a JSON form")
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}
