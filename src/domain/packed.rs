//! Usage and its draws packed into a few bytes: what the ledger keeps of an event beside its position and its source.
//!
//! The form is canonical: equal usage has equal bytes. The first byte is the version of the form, so that rows written
//! by one release can be read by the next. Numbers are LEB128.

use super::facts::{ChargingType, Position, Usage};
use super::image::Draw;
use super::quantity::Quantity;

/// The version that is written.
const VERSION: u8 = 1;

const TIMEBAND: u8 = 0b0000_0100;
const CHARGE_GROUP: u8 = 0b0000_1000;
const CHARGE_GROUP_CATEGORY: u8 = 0b0001_0000;
const DESTINATION: u8 = 0b0010_0000;
const PRICE: u8 = 0b0100_0000;

/// Appends the packed form of `usage`, its position left out.
pub fn pack(usage: &Usage<'_>, out: &mut Vec<u8>) {
    let mut flags = usage.charging_type.number();
    for (flag, there) in [
        (TIMEBAND, usage.timeband.is_some()),
        (CHARGE_GROUP, usage.charge_group.is_some()),
        (CHARGE_GROUP_CATEGORY, usage.charge_group_category.is_some()),
        (DESTINATION, usage.destination.is_some()),
        (PRICE, !usage.price.is_zero()),
    ] {
        if there {
            flags |= flag;
        }
    }
    out.extend_from_slice(&[VERSION, flags]);
    for id in [usage.upi, usage.site, usage.product, usage.quantity.millionths()] {
        put_number(id, out);
    }
    if !usage.price.is_zero() {
        put_number(usage.price.millionths(), out);
    }
    for id in [usage.charge_group, usage.charge_group_category].into_iter().flatten() {
        put_number(id, out);
    }
    for text in [usage.timeband, usage.destination].into_iter().flatten() {
        put_text(text, out);
    }
    put_text(usage.id, out);
}

/// Reads what [`pack`] wrote; `None` when the bytes are not of a known version or damaged.
pub fn unpack(position: Position, mut bytes: &[u8]) -> Option<Usage<'_>> {
    let (&[VERSION, flags], rest) = bytes.split_first_chunk::<2>()? else { return None };
    bytes = rest;
    let charging_type = *ChargingType::ALL.get(usize::from(flags & 0b11))?;
    let upi = take_number(&mut bytes)?;
    let site = take_number(&mut bytes)?;
    let product = take_number(&mut bytes)?;
    let quantity = Quantity::from_millionths(take_number(&mut bytes)?);
    let mut optional = |flag: u8| if flags & flag == 0 { Some(None) } else { take_number(&mut bytes).map(Some) };
    let price = Quantity::from_millionths(optional(PRICE)?.unwrap_or(0));
    let charge_group = optional(CHARGE_GROUP)?;
    let charge_group_category = optional(CHARGE_GROUP_CATEGORY)?;
    let timeband = if flags & TIMEBAND == 0 { None } else { Some(take_text(&mut bytes)?) };
    let destination = if flags & DESTINATION == 0 { None } else { Some(take_text(&mut bytes)?) };
    let id = take_text(&mut bytes)?;
    Some(Usage {
        position,
        site,
        upi,
        product,
        charging_type,
        quantity,
        price,
        timeband,
        charge_group,
        charge_group_category,
        destination,
        id,
    })
}

/// The charging type and the quantity of a packed event; `None` as for [`unpack`].
pub fn quantity(mut bytes: &[u8]) -> Option<(ChargingType, Quantity)> {
    let (&[VERSION, flags], rest) = bytes.split_first_chunk::<2>()? else { return None };
    bytes = rest;
    for _line_site_product in 0..3 {
        take_number(&mut bytes)?;
    }
    let quantity = Quantity::from_millionths(take_number(&mut bytes)?);
    Some((*ChargingType::ALL.get(usize::from(flags & 0b11))?, quantity))
}

/// Appends a packed event with its source behind it, for a source that has no number of its own.
pub fn pack_with_source(body: &[u8], source: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(body);
    out.extend_from_slice(source.as_bytes());
    let length = u32::try_from(source.len()).expect("a text of a record");
    out.extend_from_slice(&length.to_be_bytes());
}

/// The packed event alone of a ledger row's body; `with_source` tells whether [`pack_with_source`] wrote it. `None`
/// when the bytes are damaged.
pub fn without_source(body: &[u8], with_source: bool) -> Option<&[u8]> {
    if !with_source {
        return Some(body);
    }
    let (rest, length) = body.split_last_chunk::<4>()?;
    let source = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.get(..rest.len().checked_sub(source)?)
}

/// The source that stands behind a packed event; `None` when the bytes are damaged.
pub fn source_behind(body: &[u8]) -> Option<&str> {
    let (rest, length) = body.split_last_chunk::<4>()?;
    let source = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(rest.len().checked_sub(source)?..)?).ok()
}

/// Appends what an event took, bucket by bucket.
pub fn pack_draws(draws: &[Draw], out: &mut Vec<u8>) {
    for draw in draws {
        put_number(i64::from(draw.slot), out);
        put_number(draw.amount.millionths(), out);
    }
}

/// Reads what [`pack_draws`] wrote; `None` when the bytes are damaged.
pub fn unpack_draws(mut bytes: &[u8]) -> Option<Vec<Draw>> {
    let mut draws = Vec::new();
    while !bytes.is_empty() {
        let slot = i32::try_from(take_number(&mut bytes)?).ok()?;
        draws.push(Draw { slot, amount: Quantity::from_millionths(take_number(&mut bytes)?) });
    }
    Some(draws)
}

/// Appends a number >= 0.
fn put_number(number: i64, out: &mut Vec<u8>) {
    let mut rest = number.cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes a number >= 0 off the front.
fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return i64::try_from(number).ok();
        }
    }
    None
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(i64::try_from(text.len()).expect("a text of a record"), out);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventKey, Instant};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            ids in prop::array::uniform3(0..=i64::MAX),
            amounts in prop::array::uniform2(0..=i64::MAX),
            kind in 0usize..3,
            timeband in prop::option::of(".{0,9}"),
            group in prop::option::of(0..=i64::MAX),
            category in prop::option::of(0i64..300),
            destination in prop::option::of("[0-9+]{0,15}"),
            id in ".{1,40}",
        ) {
            let usage = Usage {
                position: Position { start: Instant::from_micros(7), key: EventKey(9) },
                site: ids[0], upi: ids[1], product: ids[2],
                charging_type: ChargingType::ALL[kind],
                quantity: Quantity::from_millionths(amounts[0]), price: Quantity::from_millionths(amounts[1]),
                timeband: timeband.as_deref(), charge_group: group, charge_group_category: category,
                destination: destination.as_deref(), id: &id,
            };
            let mut bytes = Vec::new();
            pack(&usage, &mut bytes);
            prop_assert_eq!(unpack(usage.position, &bytes), Some(usage));
            prop_assert_eq!(quantity(&bytes), Some((usage.charging_type, usage.quantity)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = unpack(Position { start: Instant::from_micros(0), key: EventKey(0) }, &bytes);
            let _ = (quantity(&bytes), unpack_draws(&bytes), source_behind(&bytes), without_source(&bytes, true));
        }
    }
}
