//! JSON read where it lies: the members of an object, each a name and the text of its value, nothing copied. This is
//! where most of an event's time in the consumer thread goes, so it is our own.
//!
//! It holds every byte to RFC 8259, in values that nobody asks for too. It takes the texts that serde_json takes, which
//! words what is wrong with the others (`fuzz` holds the two together). What a value means is the business of `fields`.

use std::ops::ControlFlow;

/// Calls `take` with the name and the value of each member of an object, in their order, until it breaks. `None` when the
/// text is no JSON object, and when `take` broke.
pub(super) fn members<'a>(text: &'a str, mut take: impl FnMut(&str, &'a str) -> ControlFlow<()>) -> Option<()> {
    whole(text, |name, at| {
        let end = value_end(text.as_bytes(), at)?;
        go_on(take(name, &text[at..end]), end)
    })
}

/// The same, and on the way calls `take_inner` with the members of the object that the member `inner` is, if it is one: each
/// byte is looked at once.
pub(super) fn members_and_inner<'a>(
    text: &'a str,
    inner: &str,
    mut take: impl FnMut(&str, &'a str) -> ControlFlow<()>,
    mut take_inner: impl FnMut(&str, &'a str) -> ControlFlow<()>,
) -> Option<()> {
    let bytes = text.as_bytes();
    whole(text, |name, at| {
        let end = if name == inner && bytes.get(at) == Some(&b'{') {
            object_end(text, at, |name, at| {
                let end = value_end(bytes, at)?;
                go_on(take_inner(name, &text[at..end]), end)
            })?
        } else {
            value_end(bytes, at)?
        };
        go_on(take(name, &text[at..end]), end)
    })
}

fn go_on(taken: ControlFlow<()>, end: usize) -> Option<usize> {
    taken.is_continue().then_some(end)
}

/// Reads a text that is one object and white space.
fn whole(text: &str, member: impl FnMut(&str, usize) -> Option<usize>) -> Option<()> {
    let bytes = text.as_bytes();
    let end = object_end(text, space(bytes, 0), member)?;
    (space(bytes, end) == bytes.len()).then_some(())
}

/// The place behind an object. `member` is given each name and the place of its value, and says where that ends.
#[inline]
fn object_end(text: &str, at: usize, mut member: impl FnMut(&str, usize) -> Option<usize>) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = space(bytes, expect(bytes, at, b'{')?);
    if bytes.get(at) == Some(&b'}') {
        return Some(at + 1);
    }
    loop {
        let name = at;
        let Text { end, is_plain } = text_at(bytes, name)?;
        let value = value_after_name(bytes, end)?;
        let end = if is_plain {
            member(&text[name + 1..end - 1], value)?
        } else {
            let name: String = serde_json::from_str(&text[name..end]).ok()?;
            member(&name, value)?
        };
        at = space(bytes, end);
        match bytes.get(at)? {
            b',' => at = space(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Whether nothing in a JSON text (its quotes included) is escaped.
pub(super) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (chunks, rest) = bytes.as_chunks::<8>();
    let escapes = |chunk: &[u8; 8]| {
        let word = u64::from_le_bytes(*chunk) ^ eight(b'\\');
        word.wrapping_sub(eight(1)) & !word & eight(0x80) != 0
    };
    match bytes.last_chunk() {
        // The last eight, for as many as are left.
        Some(last) => !chunks.iter().any(escapes) && !escapes(last),
        None => !rest.contains(&b'\\'),
    }
}

/// The place of a member's value, from the place behind its name.
fn value_after_name(bytes: &[u8], at: usize) -> Option<usize> {
    Some(space(bytes, expect(bytes, space(bytes, at), b':')?))
}

/// The place of a member's value, from the place of its name.
fn member_value(bytes: &[u8], at: usize) -> Option<usize> {
    value_after_name(bytes, text_at(bytes, at)?.end)
}

/// The place behind a value.
#[inline]
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'{' | b'[' => nested_end(bytes, at),
        _ => scalar_end(bytes, at),
    }
}

/// The place behind a value that is neither object nor array.
#[inline]
fn scalar_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => text_at(bytes, at).map(|text| text.end),
        b't' => literal_end(bytes, at, b"true"),
        b'f' => literal_end(bytes, at, b"false"),
        b'n' => literal_end(bytes, at, b"null"),
        _ => number_end(bytes, at),
    }
}

/// The place behind an object or array, whatever it holds.
#[inline(never)]
fn nested_end(bytes: &[u8], mut at: usize) -> Option<usize> {
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
                    at = if is_object { member_value(bytes, inside)? } else { inside };
                    continue;
                }
            }
            _ => scalar_end(bytes, at)?,
        };
        loop {
            let Some(is_object) = open.last() else { return Some(at) };
            at = space(bytes, at);
            match (bytes.get(at)?, is_object) {
                (b',', true) => {
                    at = member_value(bytes, space(bytes, at + 1))?;
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

/// A text within quotes, read.
struct Text {
    /// The place behind it.
    end: usize,
    /// Whether nothing in it is escaped.
    is_plain: bool,
}

/// Reads a text.
#[inline]
fn text_at(bytes: &[u8], at: usize) -> Option<Text> {
    let first = special(bytes, expect(bytes, at, b'"')?);
    if bytes.get(first) == Some(&b'"') {
        return Some(Text { end: first + 1, is_plain: true });
    }
    Some(Text { end: escaped_end(bytes, first)?, is_plain: false })
}

/// The place behind a text, from the first place on that needs a look.
fn escaped_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
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
        at = special(bytes, at);
    }
}

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The first place from `at` on of a quote, a backslash or a control character; the end when there is none.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        // A byte's high bit comes up where taking away the limit borrows. The lowest one is always right: a borrow
        // reaches only the bytes above it.
        let control = word.wrapping_sub(eight(b' '));
        let quote = (word ^ eight(b'"')).wrapping_sub(eight(1));
        let backslash = (word ^ eight(b'\\')).wrapping_sub(eight(1));
        let found = (control | quote | backslash) & !word & eight(0x80);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = after;
    }
    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
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
#[inline]
fn space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at)
        && *byte <= b' '
        && matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
    {
        at += 1;
    }
    at
}

/// The place behind a byte that must be there.
fn expect(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    (bytes.get(at) == Some(&byte)).then_some(at + 1)
}

#[cfg(test)]
pub(in crate::events) mod tests {
    use super::*;

    type Members<'a> = Vec<(String, &'a str)>;

    /// The members of an object.
    pub(in crate::events) fn read(text: &str) -> Option<Members<'_>> {
        let mut found = Vec::new();
        members(text, |name, value| push(&mut found, name, value))?;
        Some(found)
    }

    /// The members of an object, and those of the objects that are called `data` in it.
    pub(in crate::events) fn read_both(text: &str) -> Option<(Members<'_>, Members<'_>)> {
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        members_and_inner(
            text,
            "data",
            |name, value| push(&mut outer, name, value),
            |name, value| push(&mut inner, name, value),
        )?;
        Some((outer, inner))
    }

    fn push<'a>(found: &mut Members<'a>, name: &str, value: &'a str) -> ControlFlow<()> {
        found.push((name.to_owned(), value));
        ControlFlow::Continue(())
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
    fn the_members_of_an_inner_object_are_read_with_the_rest() {
        for (text, data) in [
            ("{\"a\":{\"b\":1},\"data\":{\"b\": [2] , \"data\":{\"c\":3}} }", "{\"b\":[2],\"data\":{\"c\":3}}"),
            ("{\"d\\u0061ta\":{\"b\":1}}", "{\"b\":1}"),
            ("{\"data\":[{\"b\":1}]}", "{}"),
            ("{\"a\":{\"data\":{\"b\":1}}}", "{}"),
            ("{}", "{}"),
        ] {
            let both = read(text).zip(read(data));
            assert!(both.is_some(), "{text}");
            assert_eq!(read_both(text), both, "{text}");
        }
        assert_eq!(read_both("{\"data\":{\"a\":1,}}"), None);
        assert_eq!(read_both("{\"data\":{\"a\":1}"), None);
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
