//! Which dead letters are meant.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::value_parser;
use headroom::domain::{Instant, Reason};
use headroom::store::{LetterSelection, Place};

/// Flags that pick dead letters; all given must hold.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Refused for this reason
    #[arg(long, value_name = "REASON", value_parser = reason())]
    reason: Option<Reason>,
    /// From this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// About this customer: whom the data names, else the key
    #[arg(long, value_name = "ID", value_parser = value_parser!(i64).range(0..))]
    customer: Option<i64>,
    /// Refused at this moment or later, such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Instant>,
    /// Refused before this moment
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    until: Option<Instant>,
    /// The one from here
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET", value_parser = place)]
    place: Option<Place>,
}

impl Filter {
    /// What they pick.
    pub(super) fn selection(self, put_back: Option<bool>) -> LetterSelection {
        let Filter { reason, topic, customer, from, until, place } = self;
        LetterSelection { reason, topic, place, customer, from, until, put_back }
    }
}

/// A reason by its name.
fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name))
        .try_map(|name| Reason::from_name(&name).ok_or("is no reason"))
}

fn instant(text: &str) -> Result<Instant, String> {
    Instant::parse(text).ok_or_else(|| "wants an instant with its offset, such as 2026-01-31T00:00:00Z".to_owned())
}

/// A place as it is listed.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let read = || {
        // No topic's name has a slash.
        let (topic, rest) = text.split_once('/')?;
        let (partition, offset) = rest.split_once('/')?;
        let place = Place { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? };
        (!topic.is_empty() && place.partition >= 0 && place.offset >= 0).then_some(place)
    };
    read().ok_or_else(|| "wants TOPIC/PARTITION/OFFSET, such as usage-events/3/120".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_listed() {
        let there = Place { topic: "usage-events".to_owned(), partition: 3, offset: 120 };
        assert_eq!(place(&there.to_string()), Ok(there));
        for bad in ["", "usage-events", "usage-events/3", "/3/120", "usage-events/-1/120", "a/1/2/3", "a/x/1"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
