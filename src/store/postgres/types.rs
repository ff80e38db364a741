//! Instants and event keys as PostgreSQL has them: timestamptz and uuid, binary, nothing lost.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use uuid::Uuid;

use crate::domain::{EventKey, Instant, Position};

/// Microseconds from 1970-01-01, where ours begin, to 2000-01-01, where PostgreSQL's do.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

/// The earliest instant that a timestamptz can be.
pub(super) const FIRST: Instant = Instant::from_micros(EPOCH - 211_813_488_000_000_000);

/// An instant in a timestamptz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp(pub(super) Instant);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_timestamptz")
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&(self.0.micros() - EPOCH), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Timestamp, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Timestamp(Instant::from_micros(micros + EPOCH)))
    }
}

/// An event key in a uuid, which is compared as unsigned big-endian bytes, too.
pub(super) fn uuid_of(key: EventKey) -> Uuid {
    Uuid::from_u128(key.0)
}

/// A position from its two columns.
pub(super) fn position(start: Timestamp, key: Uuid) -> Position {
    Position { start: start.0, key: EventKey(key.as_u128()) }
}
