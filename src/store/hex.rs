//! Headers of dead letters as text: JSON pairs of a name and its value in hexadecimal, since a value may be any bytes.

use std::fmt::Write;

/// Headers in their order, each with its value if it has one.
type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Headers in their order; a header without a value has null.
pub(super) fn headers_text(headers: &[(String, Option<Vec<u8>>)]) -> String {
    let pairs: Vec<(&str, Option<String>)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().map(hexadecimal))).collect();
    // NUL is no character of a PostgreSQL text, but JSON escapes it.
    serde_json::to_string(&pairs).expect("texts always have a JSON form")
}

/// The headers that a text holds.
pub(super) fn headers(text: &str) -> Result<Headers, String> {
    let pairs: Vec<(String, Option<String>)> =
        serde_json::from_str(text).map_err(|error| format!("dead_letter.headers: {error}"))?;
    let bytes =
        |text: String| bytes(&text).ok_or_else(|| format!("dead_letter.headers: \"{text}\" is not hexadecimal"));
    pairs.into_iter().map(|(name, value)| Ok((name, value.map(bytes).transpose()?))).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let kept = vec![
            ("ce_id".to_owned(), Some(vec![0, 9, 0xab, 0xff])),
            ("none".to_owned(), None),
            ("a \"\0\u{fffd}".to_owned(), Some(vec![])),
            ("ce_id".to_owned(), Some(b"twice".to_vec())),
        ];
        assert_eq!(headers(&headers_text(&kept)), Ok(kept));
        assert_eq!(headers("[]"), Ok(vec![]));
        for bad in ["[[\"a\",\"0\"]]", "[[\"a\",\"zz\"]]", "{}"] {
            assert!(headers(bad).is_err(), "{bad}");
        }
    }
}
