//! The body of an answer: a JSON array, made in pieces as the client takes them in, so that memory does not follow how large
//! a page is, nor how slowly it is read. A page that is one piece has its length told.

use std::io;

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use tracing::error;

use super::answer::Refused;
use super::rows::Rows;

/// How many bytes a piece has before it is sent, and one row more.
const PIECE: usize = 64 << 10;

/// An array under way.
struct Pieces {
    rows: Rows,
    begun: bool,
    ended: bool,
    /// While it is, it is one of the answers under way.
    _place: OwnedSemaphorePermit,
}

/// The rows as a body. What cannot be made before a byte is sent is refused; later the connection ends without the rest.
pub(super) fn of(rows: Rows, place: OwnedSemaphorePermit) -> Result<Body, Refused> {
    let mut pieces = Pieces { rows, begun: false, ended: false, _place: place };
    let first = pieces.next().unwrap_or_else(|| Ok(Vec::new())).map_err(|_| Refused::Internal)?;
    if pieces.ended {
        return Ok(Body::from(first));
    }
    let rest = stream::unfold(pieces, async |mut pieces| Some((pieces.next()?, pieces)));
    // Who packs it asks again after the end.
    Ok(Body::from_stream(stream::iter([Ok(first)]).chain(rest).fuse()))
}

impl Pieces {
    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        if self.ended {
            return None;
        }
        // Most answers are far less than a piece.
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let Some(row) = self.rows.next() else {
                piece.extend_from_slice(if self.begun { b"]" } else { b"[]" });
                self.ended = true;
                break;
            };
            piece.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            let row = row.and_then(|row| serde_json::to_writer(&mut piece, &row).map_err(|error| error.to_string()));
            if let Err(line) = row {
                error!("query: {line}");
                self.ended = true;
                return Some(Err(io::Error::other(line)));
            }
        }
        Some(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::HttpBody as _;
    use serde_json::Value;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::{Calendar, Date};
    use crate::http::grammar;
    use crate::store::{Found, Nested};

    /// Rows with these texts nested, and the places that there are for them.
    fn body(nested: Vec<String>) -> (Result<Body, Refused>, Arc<Semaphore>) {
        let row = |(upi, text)| Found {
            partition: 0,
            bill_run: 1,
            period: (Date::from_days(1), Date::from_days(2)),
            customer: 17,
            upi,
            nested: Nested::Stored(text),
        };
        let query = grammar::read("page=1&pageSize=1000").expect("good");
        let calendar = Calendar::new("Europe/Amsterdam").expect("a zone");
        let rows = Rows::new(query, calendar, (1..).zip(nested).map(row).collect(), Vec::new());
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().expect("a place");
        (of(rows, place), places)
    }

    fn entry() -> String {
        r#"[{"assignmentId":1,"assignmentLevel":"SITE","assignmentStartDate":"2026-01-01","assignmentEndDate":null,
            "inclusiveUsagePlanId":2,"components":[{"componentId":3,"byValue":false,"chargingType":"MB","allowance":4.5,
            "remaining":0,"startDate":"2026-01-01 00:00:00","endDate":"2026-01-31 23:59:59"}]}]"#
            .to_owned()
    }

    #[tokio::test]
    async fn all_rows_are_there_however_many_pieces_they_take() {
        for count in [0, 1, 2, 300, 1_000] {
            let (made, places) = body(vec![entry(); count]);
            let made = made.expect("good rows");
            let is_one = count < 100;
            assert_eq!(made.size_hint().exact().is_some(), is_one, "{count} rows: whether the length is told");
            assert_eq!(
                places.available_permits(),
                usize::from(is_one),
                "{count} rows: an answer is under way until it is read"
            );
            let (mut pieces, mut text) = (made.into_data_stream(), Vec::new());
            while let Some(piece) = pieces.next().await {
                text.extend_from_slice(&piece.expect("good rows"));
            }
            assert!(pieces.next().await.is_none(), "whoever packs it may ask again after the end");
            drop(pieces);
            assert_eq!(places.available_permits(), 1);
            let rows: Vec<Value> = serde_json::from_slice(&text).expect("an array");
            assert_eq!(rows.len(), count);
            for (upi, row) in (1..).zip(&rows) {
                assert_eq!(row["usageProductInventoryId"], Value::from(upi));
                assert_eq!(row["inclusiveUsageBalanceAssignments"][0]["components"][0]["allowance"].to_string(), "4.5");
            }
        }
    }

    #[tokio::test]
    async fn a_row_that_nobody_can_read_never_looks_like_the_end() {
        let (made, places) = body(vec!["[".to_owned()]);
        assert_eq!((made.err(), places.available_permits()), (Some(Refused::Internal), 1));
        let mut nested = vec![entry(); 1_000];
        nested[900] = "{}".to_owned();
        let (made, places) = body(nested);
        let read = axum::body::to_bytes(made.expect("a good first piece"), usize::MAX).await;
        assert!(read.is_err());
        assert_eq!(places.available_permits(), 1);
    }
}
