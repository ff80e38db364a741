//! Dead letters on paper: a list, and one whole.

use std::path::PathBuf;

use clap::value_parser;
use headroom::config::Needs;
use headroom::domain::Instant;
use headroom::service::store_options;
use headroom::store::{self, LetterPage, ListedLetter, Place, StoreError, WholeLetter};
use serde_json::{Value, json};

use super::filter::{Filter, place};
use crate::cli::Failure;
use crate::cli::output::{print, printable};
use crate::cli::runtime::block_on;
use crate::cli::settings::Settings;

/// What the list takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Only those that wait: neither put back nor mended
    #[arg(long)]
    waiting: bool,
    /// The first refused one first, not the last
    #[arg(long)]
    oldest: bool,
    /// The next page: those after this one, the last of the page before
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET", value_parser = place)]
    after: Option<Place>,
    /// The most of them to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What showing one takes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArgs {
    /// Where it lay, as it is listed
    #[arg(value_name = "TOPIC/PARTITION/OFFSET", value_parser = place)]
    place: Place,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Lists a page.
pub(super) fn list(args: ListArgs, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    let selection = args.filter.selection(args.waiting.then_some(false));
    let page = LetterPage { newest_first: !args.oldest, after: args.after, limit: args.limit };
    let found = block_on(async { store::connect(&options)?.list_dead_letters(&selection, &page).await })?;
    let found = found.map_err(anyhow::Error::from)?;
    for letter in &found {
        print(&if args.json { listed_json(letter).to_string() } else { listed(letter) })?;
    }
    if let Some(last) = found.last().filter(|_| found.len() >= usize::try_from(args.limit).unwrap_or(usize::MAX)) {
        eprintln!(
            "headroom: these are {}; there may be more: --after {}, or a larger --limit",
            found.len(),
            last.place
        );
    }
    Ok(())
}

/// Shows one whole.
pub(super) fn show(args: ShowArgs, file: Option<PathBuf>) -> Result<(), Failure> {
    let config = args.settings.load(file, Needs::Store)?;
    let options = store_options(&config)?;
    let found: Result<_, StoreError> = block_on(async { store::connect(&options)?.dead_letter(&args.place).await })?;
    let Some(letter) = found.map_err(anyhow::Error::from)? else {
        return Err(Failure::Failed(anyhow::anyhow!("{}: no dead letter comes from there", args.place)));
    };
    Ok(print(&if args.json { whole_json(&args.place, &letter).to_string() } else { whole(&args.place, &letter) })?)
}

fn listed(letter: &ListedLetter) -> String {
    let back = letter.put_back_at.map_or_else(String::new, |at| format!("  put back {at}"));
    let key = letter.key.as_deref().map_or_else(|| "null".to_owned(), readable);
    format!(
        "{}  {}  key {key}  {}: {}{back}",
        letter.place,
        letter.refused_at,
        letter.reason,
        printable(&letter.detail)
    )
}

fn listed_json(letter: &ListedLetter) -> Value {
    let Place { topic, partition, offset } = &letter.place;
    json!({
        "topic": topic, "partition": partition, "offset": offset, "refusedAt": letter.refused_at.to_string(),
        "putBackAt": letter.put_back_at.map(|at| at.to_string()), "reason": letter.reason, "detail": letter.detail,
        "key": letter.key.as_deref().map(bytes_json), "valueBytes": letter.value_bytes,
    })
}

fn whole(place: &Place, letter: &WholeLetter) -> String {
    let row = &letter.row;
    let mut lines = vec![
        format!("place      {place}"),
        format!("reason     {}: {}", row.reason, printable(&row.detail)),
        format!("timestamp  {}", row.timestamp.map_or_else(|| "none".to_owned(), timestamp)),
        format!("refused    {}", letter.refused_at),
        format!("put back   {}", letter.put_back_at.map_or_else(|| "never".to_owned(), |at| at.to_string())),
        format!("key        {}", row.key.as_deref().map_or_else(|| "null".to_owned(), readable)),
    ];
    for (name, value) in &row.headers {
        let value = value.as_deref().map_or_else(|| "null".to_owned(), readable);
        lines.push(format!("header     {}: {value}", name.escape_debug()));
    }
    lines.push(format!("value      {}", row.value.as_deref().map_or_else(|| "null".to_owned(), readable)));
    lines.join("\n")
}

fn whole_json(place: &Place, letter: &WholeLetter) -> Value {
    let Place { topic, partition, offset } = place;
    let row = &letter.row;
    let headers: Vec<Value> = row
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value.as_deref().map(bytes_json)}))
        .collect();
    json!({
        "topic": topic, "partition": partition, "offset": offset, "timestamp": row.timestamp.map(timestamp),
        "refusedAt": letter.refused_at.to_string(), "putBackAt": letter.put_back_at.map(|at| at.to_string()),
        "reason": row.reason, "detail": row.detail, "key": row.key.as_deref().map(bytes_json), "headers": headers,
        "value": row.value.as_deref().map(bytes_json),
    })
}

fn timestamp(millis: i64) -> String {
    // A producer can send any number; one that no date has is shown as it is.
    const LAST: i64 = 253_402_300_799_999;
    if (0..=LAST).contains(&millis) { Instant::from_micros(millis * 1_000).to_string() } else { millis.to_string() }
}

/// Text as it is; what is no text in hexadecimal.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => printable(text),
        Err(_) => format!("0x{}", hexadecimal(bytes)),
    }
}

/// Text as a string, what is no text as an object, so that the two are never mistaken for one another.
fn bytes_json(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({"hex": hexadecimal(bytes)}), |text| json!(text))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable_and_harmless() {
        assert_eq!(readable(b"{\"a\": \"\xc3\xa4\"}"), "{\"a\": \"\u{e4}\"}");
        assert_eq!(readable(b"\x1b[31mred"), "\\u{1b}[31mred");
        assert_eq!(readable(&[0xff, 0]), "0xff00");
        assert_eq!(bytes_json(b"7"), json!("7"));
        assert_eq!(bytes_json(&[0xff]), json!({"hex": "ff"}));
        assert_eq!((timestamp(1_000), timestamp(i64::MAX)), ("1970-01-01T00:00:01Z".into(), i64::MAX.to_string()));
    }
}
