//! JSON read where it lies: the members of an object, each a name and the text of its value, nothing copied. This is
//! where most of an event's time in the consumer thread goes, so it is our own.
//!
//! It holds every byte to RFC 8259, in values that nobody asks for too. It takes the texts that serde_json takes, which
//! words what is wrong with the others (`fuzz` holds the two together). What a value means is the business of `fields`.

use std::ops::ControlFlow;

/// Calls `take` with the name and the value of each member of an object, in their order, until it breaks. `None` when the
/// text is no JSON object, and when `take` broke.
pub(super) fn members<'a>(text: &'a str, mut take: impl FnMut(&str, &'a str) -> ControlFlow<()>) -> Option<()> {
    let bytes = text.as_bytes();
    let mut at = space(bytes, expect(bytes, space(bytes, 0), b'{')?);
    if bytes.get(at) == Some(&b'}') {
        return ended(bytes, at + 1);
    }
    loop {
        let name = at;
        let Name { end: name_end, is_plain, value } = member_name(bytes, name)?;
        let end = value_end(bytes, value)?;
        let value = &text[value..end];
        let taken = if is_plain {
            take(&text[name + 1..name_end - 1], value)
        } else {
            let name: String = serde_json::from_str(&text[name..name_end]).ok()?;
            take(&name, value)
        };
        if taken.is_break() {
            return None;
        }
        at = space(bytes, end);
        match bytes.get(at)? {
            b',' => at = space(bytes, at + 1),
            b'}' => return ended(bytes, at + 1),
            _ => return None,
        }
    }
}

/// Whether a text is a JSON object.
pub(super) fn is_object(text: &str) -> bool {
    members(text, |_, _| ControlFlow::Continue(())).is_some()
}

/// Whether nothing in a JSON text (its quotes included) is escaped.
pub(super) fn is_plain(text: &str) -> bool {
    special(text.as_bytes(), 1) + 1 == text.len()
}

/// A member's name, read.
struct Name {
    /// The place behind it.
    end: usize,
    /// Whether nothing in it is escaped.
    is_plain: bool,
    /// The place of the value.
    value: usize,
}

/// Reads a name and the colon behind it.
fn member_name(bytes: &[u8], at: usize) -> Option<Name> {
    let first = special(bytes, expect(bytes, at, b'"')?);
    let is_plain = bytes.get(first) == Some(&b'"');
    let end = if is_plain { first + 1 } else { string_end(bytes, at)? };
    let value = space(bytes, expect(bytes, space(bytes, end), b':')?);
    Some(Name { end, is_plain, value })
}

/// The place behind a value.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut open = Nesting::default();
    loop {
        at = match bytes.get(at)? {
            opening @ (b'{' | b'[') => {
                let is_object = *opening == b'{';
                let inside = space(bytes, at + 1);
                if bytes.get(inside) == Some(&(opening + 2)) {
                    inside + 1
                } else {
                    open.push(is_object);
                    at = if is_object { member_name(bytes, inside)?.value } else { inside };
                    continue;
                }
            }
            b'"' => string_end(bytes, at)?,
            b't' => literal_end(bytes, at, b"true")?,
            b'f' => literal_end(bytes, at, b"false")?,
            b'n' => literal_end(bytes, at, b"null")?,
            _ => number_end(bytes, at)?,
        };
        loop {
            let Some(is_object) = open.last() else { return Some(at) };
            at = space(bytes, at);
            match (bytes.get(at)?, is_object) {
                (b',', true) => {
                    at = member_name(bytes, space(bytes, at + 1))?.value;
                    break;
                }
                (b',', false) => {
                    at = space(bytes, at + 1);
                    break;
                }
                (b'}', true) | (b']', false) => {
                    open.pop();
                    at += 1;
                }
                _ => return None,
            }
        }
    }
}

/// What is open around a value, innermost last: for each whether it is an object, else an array. As deep as a text likes.
#[derive(Default)]
struct Nesting {
    /// The last up to 64 ones, the innermost in the lowest bit.
    bits: u64,
    depth: usize,
    /// Those around them, 64 each.
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().expect("one for each 64 open");
        }
    }

    fn last(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

/// The place behind a string.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = expect(bytes, at, b'"')?;
    loop {
        at = special(bytes, at);
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let digits = bytes.get(at + 2..at + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    at += 6;
                }
                _ => return None,
            },
            // A control character.
            _ => return None,
        }
    }
}

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The first place from `at` on of a quote, a backslash or a control character; the end when there is none.
fn special(bytes: &[u8], mut at: usize) -> usize {
    // The high bit of each byte that is less than `limit`, of which the lowest one is always right: a borrow reaches only
    // the bytes above it.
    let below = |word: u64, limit: u8| word.wrapping_sub(eight(limit)) & !word & eight(0x80);
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let found = below(word, b' ') | below(word ^ eight(b'"'), 1) | below(word ^ eight(b'\\'), 1);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The place behind a number.
fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let at = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    let mut end = match bytes.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits_end(bytes, at + 1),
        _ => return None,
    };
    if bytes.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits_end(bytes, fraction);
        if end == fraction {
            return None;
        }
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let signed = end + 1;
        let exponent = if let Some(b'+' | b'-') = bytes.get(signed) { signed + 1 } else { signed };
        end = digits_end(bytes, exponent);
        if end == exponent {
            return None;
        }
    }
    Some(end)
}

fn digits_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

fn literal_end(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(literal).then_some(at + literal.len())
}

/// The first place from `at` on that is no white space.
fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The place behind a byte that must be there.
fn expect(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

/// Whether nothing but white space follows.
fn ended(bytes: &[u8], at: usize) -> Option<()> {
    (space(bytes, at) == bytes.len()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, &str)>> {
        let mut found = Vec::new();
        members(text, |name, value| {
            found.push((name.to_owned(), value));
            ControlFlow::Continue(())
        })?;
        Some(found)
    }

    #[test]
    fn members_are_found_as_they_stand() {
        let found =
            read(" {\"a\" : 1.5e-3 ,\"b\\u0063\":[{\"x\":[]},\"}\\\"\"],\"\":{ } ,\"a\":null}\n").expect("an object");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, [("a", "1.5e-3"), ("bc", "[{\"x\":[]},\"}\\\"\"]"), ("", "{ }"), ("a", "null")]);
        assert_eq!(read("{}"), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_object_is_not_read() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            "{}{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":[1}}",
            "{\"a\":{1:2}}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"}",
            "{'a':1}",
            "{\"\\ud800\":1}",
            "{\"a\":[}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_as_deep_as_it_likes() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 5_000] {
            let (open, close) = ("[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert!(read(&format!("{{\"deep\":{open}1{close}}}")).is_some(), "{depth}");
            assert!(read(&format!("{{\"deep\":{open}1{}}}", close.replacen("}]", "]}", 1))).is_none(), "{depth}");
            assert!(read(&format!("{{\"deep\":{open}1{}}}", &close[1..])).is_none(), "{depth}");
        }
    }

    #[test]
    fn a_text_is_plain_that_has_nothing_escaped() {
        for (text, plain) in [("\"\"", true), ("\"0123456789\"", true), ("\"01234567\\n\"", false), ("\"\\\"\"", false)]
        {
            assert_eq!(is_plain(text), plain, "{text}");
        }
    }
}
