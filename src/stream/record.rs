//! What a record's own interface does not say safely.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

/// The name that a header gets whose own name is not UTF-8.
pub const UNREADABLE_NAME: &str = "\u{fffd}";

/// Calls `each` for every header, in their order, with its name and value.
///
/// rdkafka panics on a header whose name is not UTF-8, which any producer can send: such a header is given under
/// [`UNREADABLE_NAME`] and without its value, which cannot be reached.
pub fn for_each_header<'a>(message: &'a BorrowedMessage<'_>, mut each: impl FnMut(&'a str, Option<&'a [u8]>)) {
    let Some(headers) = message.headers() else { return };
    for index in 0..headers.count() {
        match catch_unwind(AssertUnwindSafe(|| headers.try_get(index))) {
            Ok(Some(header)) => each(header.key, header.value),
            Ok(None) => {}
            Err(_) => each(UNREADABLE_NAME, None),
        }
    }
}

/// The value of the last header of this name, as text.
pub fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let mut found = None;
    for_each_header(message, |key, value| {
        if key == name {
            found = value.and_then(|value| std::str::from_utf8(value).ok());
        }
    });
    found
}
