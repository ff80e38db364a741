//! New ledger rows for COPY in PostgreSQL's binary format, encoded by hand: they are most of what is written, and nothing
//! else should cost anything for each event. They go in pieces that stay in the processor's cache while they are copied
//! from hand to hand.

use sqlx::Error;
use sqlx::postgres::PgConnection;

use super::types::EPOCH;
use crate::store::{Commit, NewUsage};

/// The statement that the rows are for; the columns stand in the table's own order.
const STATEMENT: &str = "COPY ledger (customer_id, start_time, event_key, partition, source, state, body, \
                                    draws) FROM STDIN (FORMAT binary)";

/// What COPY begins with: a signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What COPY ends with: a row of -1 columns.
const TRAILER: [u8; 2] = [0xff, 0xff];
/// How many bytes are sent at once.
const PIECE: usize = 64 << 10;

/// Sends all new ledger rows of a commit.
pub(super) async fn send(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    let mut sink = connection.copy_in_raw(STATEMENT).await?;
    let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
    piece.extend_from_slice(HEADER);
    for usage in &commit.usage {
        encode_row(commit, usage, &mut piece);
        if piece.len() >= PIECE {
            sink.send(piece.as_slice()).await?;
            piece.clear();
        }
    }
    piece.extend_from_slice(&TRAILER);
    sink.send(piece.as_slice()).await?;
    sink.finish().await.map(drop)
}

fn encode_row(commit: &Commit, usage: &NewUsage, out: &mut Vec<u8>) {
    let bytes = |range: &std::ops::Range<u32>| &commit.bytes[range.start as usize..range.end as usize];
    out.extend_from_slice(&8i16.to_be_bytes());
    column(&usage.key.customer.to_be_bytes(), out);
    column(&(usage.key.position.start.micros() - EPOCH).to_be_bytes(), out);
    column(&usage.key.position.key.0.to_be_bytes(), out);
    column(&commit.partition.to_be_bytes(), out);
    column(&usage.source.to_be_bytes(), out);
    column(&[usage.state.number()], out);
    column(bytes(&usage.body), out);
    column(bytes(&usage.draws), out);
}

fn column(value: &[u8], out: &mut Vec<u8>) {
    let length = i32::try_from(value.len()).expect("a column of a row is small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
