//! The CloudEvent in a record: structured mode or Kafka binary mode (`domain.md section 3`).

use std::borrow::Cow;

use super::Record;
use super::fields::{shown, text};
use super::object::{self, Object, raw_object};
use crate::domain::{Reason, Refusal};

raw_object! {
    /// A CloudEvent in structured mode. Its time is not looked at, and yet it may not be given twice.
    Structured {
        specversion = "specversion", id = "id", source = "source", kind = "type", time = "time", data = "data",
    }
}

/// A CloudEvent; what its data say is still to be judged.
#[derive(Debug)]
pub(super) struct Envelope<'a, D> {
    pub(super) id: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    pub(super) kind: Cow<'a, str>,
    pub(super) data: D,
}

/// How a record carries its event.
enum Mode {
    Structured,
    Binary,
    Batched,
}

fn unreadable(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Unreadable, detail)
}

/// Finds the event in a record.
pub(super) fn open<'a, D, H>(record: &Record<'a, H>) -> Result<Envelope<'a, D>, Refusal>
where
    D: Object<'a>,
    H: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
{
    let value = record.value.ok_or_else(|| unreadable("the record has no value"))?;
    let value = std::str::from_utf8(value).map_err(|error| unreadable(format!("the value is not UTF-8: {error}")))?;
    match mode(record.headers.clone()) {
        Mode::Structured => structured(value),
        Mode::Binary => binary(record.headers.clone(), value),
        Mode::Batched => Err(unreadable("content-type: batched CloudEvents are not taken; send one event a record")),
    }
}

/// The content type decides; without one of CloudEvents' the presence of `ce_` headers does.
fn mode<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Mode {
    let mut binary = false;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            let media = value.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            if media.eq_ignore_ascii_case(b"application/cloudevents+json") {
                return Mode::Structured;
            }
            if media.len() >= 29 && media[..29].eq_ignore_ascii_case(b"application/cloudevents-batch") {
                return Mode::Batched;
            }
        }
        binary |= name.starts_with("ce_");
    }
    if binary { Mode::Binary } else { Mode::Structured }
}

fn structured<'a, D: Object<'a>>(value: &'a str) -> Result<Envelope<'a, D>, Refusal> {
    let (event, data) = object::read_both::<Structured<'_>, D>(value, "data")?;
    judge_version(&attribute(event.specversion, "specversion")?)?;
    let raw = event.data.ok_or_else(|| unreadable("data is missing"))?;
    if !raw.starts_with('{') {
        return Err(unreadable(format!("data: {} is no object", shown(raw))));
    }
    Ok(Envelope {
        id: filled("id", attribute(event.id, "id")?)?,
        source: filled("source", attribute(event.source, "source")?)?,
        kind: attribute(event.kind, "type")?,
        data,
    })
}

/// An attribute that must be there, borrowed from the value where it needs no unescaping.
fn attribute<'a>(raw: Option<&'a str>, name: &str) -> Result<Cow<'a, str>, Refusal> {
    let raw = raw.ok_or_else(|| unreadable(format!("{name} is missing")))?;
    text(raw).ok_or_else(|| unreadable(format!("{name}: {} is no text", shown(raw))))
}

fn binary<'a, D: Object<'a>>(
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    value: &'a str,
) -> Result<Envelope<'a, D>, Refusal> {
    let names = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"];
    let mut attributes: [Option<&'a [u8]>; 5] = [None; 5];
    for (name, value) in headers {
        let Some(at) = names.iter().position(|known| *known == name) else { continue };
        let Some(bytes) = value else { continue };
        if attributes[at].replace(bytes).is_some() {
            return Err(unreadable(format!("{name} is given twice")));
        }
    }
    let attribute = |at: usize| {
        let bytes = attributes[at].ok_or_else(|| unreadable(format!("{} is missing", names[at])))?;
        std::str::from_utf8(bytes).map_err(|_| unreadable(format!("{} is not UTF-8", names[at])))
    };
    judge_version(attribute(0)?)?;
    let data = value.trim_matches([' ', '\n', '\t', '\r']);
    if data == "null" {
        return Err(unreadable("data is missing"));
    }
    let data = object::read(data)?;
    Ok(Envelope {
        id: filled("ce_id", Cow::Borrowed(attribute(1)?))?,
        source: filled("ce_source", Cow::Borrowed(attribute(2)?))?,
        kind: Cow::Borrowed(attribute(3)?),
        data,
    })
}

fn judge_version(version: &str) -> Result<(), Refusal> {
    if version == "1.0" {
        return Ok(());
    }
    Err(unreadable(format!("specversion: {} is not \"1.0\"", shown(version))))
}

fn filled<'a>(name: &str, text: Cow<'a, str>) -> Result<Cow<'a, str>, Refusal> {
    if text.is_empty() {
        return Err(unreadable(format!("{name} is empty")));
    }
    Ok(text)
}
