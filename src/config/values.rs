//! The kinds of values that keys take. Each is checked where it is made, and says what it wants when it is not that.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::domain::Calendar;

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Makes a kind of text: its name, what it wants, and the rule that it keeps.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $wants:literal, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<$name, &'static str> {
                let keeps: fn(&str) -> bool = $rule;
                if keeps(&text) { Ok($name(text)) } else { Err(concat!("wants ", $wants)) }
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }
    };
}

text!(
    /// Text that is not empty.
    Text,
    "text that is not empty",
    |text| !text.trim().is_empty()
);

text!(
    /// The name of a Kafka topic.
    TopicName,
    "a topic's name: 1 to 249 letters, digits, dots, underscores and hyphens",
    |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=249).contains(&text.len()) && text.chars().all(fits) && text != "." && text != ".."
    }
);

text!(
    /// Where Kafka is: `host:port`, several with commas between.
    Servers,
    "host:port, or several with commas between, such as \"kafka-1:9092,kafka-2:9092\"",
    |text| text.split(',').all(|server| match server.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    })
);

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    /// A number known when the program is built.
    pub(super) const fn new(number: u32) -> Self {
        assert!(MIN <= number && number <= MAX, "a default lies within its own bounds");
        Whole(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Within<const MIN: u32, const MAX: u32>;
        impl<const MIN: u32, const MAX: u32> Visitor<'_> for Within<MIN, MAX> {
            type Value = Whole<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match u32::try_from(number) {
                    Ok(number) if (MIN..=MAX).contains(&number) => Ok(Whole(number)),
                    _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_i64(Within)
    }
}

/// A number of bytes from a mebibyte to so many gibibytes, written with its unit: `16MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size<const GIBIBYTES: u64>(u64);

/// The units of a [`Size`], the largest first.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl<const GIBIBYTES: u64> Size<GIBIBYTES> {
    /// So many mebibytes.
    pub(super) const fn mebibytes(count: u64) -> Size<GIBIBYTES> {
        Size(count << 20)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Option<Size<GIBIBYTES>> {
        let (count, unit) = SIZE_UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
        let bytes = count.trim().parse::<u64>().ok()?.checked_mul(unit)?;
        (1 << 20..=GIBIBYTES << 30).contains(&bytes).then_some(Size(bytes))
    }
}

impl<const GIBIBYTES: u64> TryFrom<String> for Size<GIBIBYTES> {
    type Error = String;

    fn try_from(text: String) -> Result<Size<GIBIBYTES>, String> {
        Size::parse(&text).ok_or_else(|| format!("wants a size from 1MiB to {GIBIBYTES}GiB, such as \"16MiB\""))
    }
}

impl<const GIBIBYTES: u64> Serialize for Size<GIBIBYTES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = SIZE_UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = unit.copied().unwrap_or(("B", 1));
        serializer.collect_str(&format_args!("{}{name}", self.0 / unit))
    }
}

/// A length of time: `24h`, `400d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

/// The units that a [`Span`] is shown in, in milliseconds, the largest first.
const SPAN_UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    /// So many hours.
    pub(super) const fn hours(count: u64) -> Span {
        Span(Duration::from_secs(count * 3600))
    }

    /// So many minutes.
    pub(super) const fn minutes(count: u64) -> Span {
        Span(Duration::from_secs(count * 60))
    }

    /// So many seconds.
    pub(super) const fn seconds(count: u64) -> Span {
        Span(Duration::from_secs(count))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Reads `24h` or `1h 30m`; nothing under a millisecond, nothing over a hundred years.
    pub fn parse(text: &str) -> Option<Span> {
        let duration = humantime::parse_duration(text).ok()?;
        let most = Duration::from_secs(36_525 * 86_400);
        (Duration::from_millis(1)..=most).contains(&duration).then_some(Span(duration))
    }
}

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Span, &'static str> {
        Span::parse(&text).ok_or("wants a time such as \"24h\" or \"400d\", more than nothing and at most 100 years")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        let unit = SPAN_UNITS.iter().find(|(_, unit)| millis.is_multiple_of(*unit));
        let (name, unit) = unit.copied().unwrap_or(("ms", 1));
        serializer.collect_str(&format_args!("{}{name}", millis / unit))
    }
}

/// An address and a port to listen on; port 0 takes any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl TryFrom<String> for Listen {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Listen, &'static str> {
        text.parse().map(Listen).map_err(|_| "wants an IP address and a port, such as \"127.0.0.1:8080\"")
    }
}

/// The time zone that local days follow.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone {
    name: String,
    calendar: Calendar,
}

impl Zone {
    /// Its IANA name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its days.
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}

impl TryFrom<String> for Zone {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Zone, &'static str> {
        let calendar =
            Calendar::new(&name).map_err(|_| "wants an IANA time zone, such as \"UTC\" or \"Europe/London\"")?;
        Ok(Zone { name, calendar })
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.name == other.name
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

/// Text that is never shown: not by `Debug`, and not when the config is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret made by the program itself; `None` for an empty one.
    pub fn new(text: impl Into<String>) -> Option<Secret> {
        let text = text.into();
        (!text.is_empty()).then_some(Secret(text))
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Secret::new(String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("wants text that is not empty"))
    }
}

/// What is handed to librdkafka as it is: `security.protocol`, `sasl.*`, `ssl.*`.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Properties(BTreeMap<String, String>);

/// Properties that have a key of their own here.
const OWN_KEYS: [(&str, &str); 3] = [
    ("bootstrap.servers", "is set by kafka.bootstrap_servers"),
    ("metadata.broker.list", "is set by kafka.bootstrap_servers"),
    ("group.id", "is set by kafka.group"),
];

/// What the names of librdkafka's properties that hold secrets have in common.
const SECRET_WORDS: [&str; 7] = ["password", "secret", "pem", "token", "jaas", "assertion", "oauthbearer.config"];

impl Properties {
    /// Names and values, in the order of the names. Values may be secrets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(name, _)| secret_in(name).is_none())
    }

    /// With the names of files, in whose stead `iter` has what they hold.
    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        let of_a_file = |name: &str| self.all().any(|(other, _)| secret_in(other) == Some(name));
        self.all().filter(move |(name, _)| !of_a_file(name)).map(|(name, value)| {
            let secret = SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word));
            (name, if secret && secret_in(name).is_none() { REDACTED } else { value })
        })
    }
}

/// The property that this one names the file of.
fn secret_in(name: &str) -> Option<&str> {
    name.strip_suffix(super::secrets::SUFFIX).filter(|secret| !secret.is_empty())
}

impl TryFrom<BTreeMap<String, String>> for Properties {
    type Error = String;

    fn try_from(properties: BTreeMap<String, String>) -> Result<Properties, String> {
        match OWN_KEYS.iter().find(|(name, _)| properties.contains_key(*name)) {
            Some((name, key)) => Err(format!("\"{name}\" {key}")),
            None => Ok(Properties(properties)),
        }
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}
