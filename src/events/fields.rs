//! Single values, and the faults that they can have. The first missing field is told before the first bad value.

use std::borrow::Cow;

use super::json;
use super::object::{self, Object};
use crate::domain::{Date, Instant, Quantity, Reason, Refusal};

/// The most of a value that a sentence shows, in characters.
const SHOWN: usize = 100;

/// Collects the faults of a record's fields. Readers give a harmless value for a faulty field, so that the rest can be
/// judged too; [`Faults::judge`] must be asked before anything is used.
#[derive(Debug, Default)]
pub(super) struct Faults {
    missing: Option<String>,
    bad: Option<String>,
    reversed: Option<String>,
}

impl Faults {
    /// Notes a required field that is absent.
    pub(super) fn missing(&mut self, path: &str, field: &str) {
        self.missing.get_or_insert_with(|| format!("{path}{field} is missing"));
    }

    /// Notes a field with a value that it cannot have.
    pub(super) fn bad(&mut self, path: &str, field: &str, value: &str, rule: &str) {
        self.bad.get_or_insert_with(|| format!("{path}{field}: {} {rule}", shown(value)));
    }

    /// Notes an end that lies before its start.
    pub(super) fn end_before_start(&mut self, end: (&str, Date), start: (&str, Date)) {
        if end.1 < start.1 {
            self.reversed.get_or_insert_with(|| format!("{}: {} is before {}, {}", end.0, end.1, start.0, start.1));
        }
    }

    /// The first fault by the order of reasons.
    pub(super) fn judge(self) -> Result<(), Refusal> {
        let first = [
            (Reason::MissingField, self.missing),
            (Reason::BadValue, self.bad),
            (Reason::EndBeforeStart, self.reversed),
        ];
        match first.into_iter().find_map(|(reason, detail)| Some(Refusal::new(reason, detail?))) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}

/// A field of an object: its raw value, and what it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a, 'p> {
    pub(super) raw: Option<&'a str>,
    /// What stands before the name in a sentence, e.g. `plan.`.
    pub(super) path: &'p str,
    pub(super) name: &'p str,
}

/// Reads one kind of value; `None` for one that it cannot be.
type Read<'a, T> = fn(&'a str) -> Option<T>;

impl<'a, 'p> Field<'a, 'p> {
    pub(super) fn new(raw: Option<&'a str>, path: &'p str, name: &'p str) -> Field<'a, 'p> {
        Field { raw, path, name }
    }

    /// A value that must be there.
    pub(super) fn required<T>(self, read: Read<'a, T>, rule: &str, faults: &mut Faults) -> Option<T> {
        if self.raw.is_none() {
            faults.missing(self.path, self.name);
        }
        self.optional(read, rule, faults)
    }

    /// A value that may be absent.
    pub(super) fn optional<T>(self, read: Read<'a, T>, rule: &str, faults: &mut Faults) -> Option<T> {
        let raw = self.raw?;
        let value = read(raw);
        if value.is_none() {
            faults.bad(self.path, self.name, raw, rule);
        }
        value
    }

    /// A required id; 0 when it is faulty.
    pub(super) fn id(self, faults: &mut Faults) -> i64 {
        self.required(id, ID, faults).unwrap_or(0)
    }

    /// An optional id.
    pub(super) fn optional_id(self, faults: &mut Faults) -> Option<i64> {
        self.optional(id, ID, faults)
    }

    /// A required decimal; 0 when it is faulty.
    pub(super) fn quantity(self, faults: &mut Faults) -> Quantity {
        self.required(quantity, QUANTITY, faults).unwrap_or(Quantity::ZERO)
    }

    /// An optional decimal.
    pub(super) fn optional_quantity(self, faults: &mut Faults) -> Option<Quantity> {
        self.optional(quantity, QUANTITY, faults)
    }

    /// A required instant; the epoch when it is faulty.
    pub(super) fn instant(self, faults: &mut Faults) -> Instant {
        self.required(instant, INSTANT, faults).unwrap_or(Instant::from_micros(0))
    }

    /// A required text; empty when it is faulty.
    pub(super) fn text(self, faults: &mut Faults) -> Cow<'a, str> {
        self.required(text, TEXT, faults).unwrap_or_default()
    }

    /// An optional text.
    pub(super) fn optional_text(self, faults: &mut Faults) -> Option<Cow<'a, str>> {
        self.optional(text, TEXT, faults)
    }

    /// A required date.
    pub(super) fn date(self, faults: &mut Faults) -> Option<Date> {
        self.required(date, DATE, faults)
    }

    /// An optional date.
    pub(super) fn optional_date(self, faults: &mut Faults) -> Option<Date> {
        self.optional(date, DATE, faults)
    }
}

/// A required object within the data; `None` when it is faulty. A field given twice in it makes the record unreadable.
pub(super) fn object<'a, T: Object<'a>>(field: Field<'a, '_>, faults: &mut Faults) -> Result<Option<T>, Refusal> {
    let Some(raw) = field.required(an_object, "is no object", faults) else { return Ok(None) };
    object::read(raw).map(Some)
}

fn an_object(raw: &str) -> Option<&str> {
    raw.starts_with('{').then_some(raw)
}

const ID: &str = "is no id: an integer from 0 to 9223372036854775807";
const QUANTITY: &str = "is no decimal >= 0 with at most 6 decimals that fits 64 bits";
const INSTANT: &str = "is no RFC 3339 instant with an offset, such as \"2026-11-24T09:30:00Z\"";
const DATE: &str = "is no date of the form \"yyyy-MM-dd\"";
const TEXT: &str = "is no text";

/// A JSON integer >= 0.
pub(super) fn id(raw: &str) -> Option<i64> {
    integer(raw).filter(|id| *id >= 0)
}

/// A JSON integer: of the JSON values just those that Rust reads as one too.
pub(super) fn integer(raw: &str) -> Option<i64> {
    raw.parse().ok()
}

/// A decimal: a JSON number, or a text with a JSON number's grammar.
pub(super) fn quantity(raw: &str) -> Option<Quantity> {
    if raw.starts_with('"') { Quantity::parse(&text(raw)?) } else { Quantity::parse(raw) }
}

/// A JSON boolean.
pub(super) fn boolean(raw: &str) -> Option<bool> {
    match raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A JSON text, borrowed where nothing in it is escaped.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if json::is_plain(raw) {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

fn instant(raw: &str) -> Option<Instant> {
    Instant::parse(&text(raw)?)
}

fn date(raw: &str) -> Option<Date> {
    Date::parse(&text(raw)?)
}

/// A value for a sentence: shortened, and without control characters.
pub(crate) fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN).flat_map(printable).collect();
    if value.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_unicode());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

/// A number >= 0 in decimal digits.
pub(super) fn decimal(number: i64, digits: &mut [u8; 20]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}
