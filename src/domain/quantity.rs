//! Exact decimals: quantities, allowances, prices and thresholds (`domain.md section 2`).
//!
//! A quantity is a whole number of millionths in an `i64`; binary floating point never touches one. What does not
//! fit, or has more than six decimals by value, is refused rather than rounded.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A decimal >= 0 with at most six decimals, kept as millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(i64);

/// Millionths in one.
const ONE: i64 = 1_000_000;
/// Decimals of a millionth.
const DECIMALS: i64 = 6;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity(0);

    /// From millionths. They are never negative: a negative number is a fault of the caller.
    pub const fn from_millionths(millionths: i64) -> Quantity {
        assert!(millionths >= 0, "a quantity is never negative");
        Quantity(millionths)
    }

    /// The same number as millionths.
    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// What is left when `part`, which is no more than the whole, is taken away.
    #[must_use]
    pub fn less(self, part: Quantity) -> Quantity {
        Quantity::from_millionths(self.0 - part.0)
    }

    /// `floor(self * numerator / denominator)` at the millionth, for `numerator <= denominator` (`domain.md section 5`).
    #[must_use]
    pub fn share(self, numerator: Quantity, denominator: Quantity) -> Quantity {
        let share = i128::from(self.0) * i128::from(numerator.0) / i128::from(denominator.0);
        Quantity(i64::try_from(share).expect("a share is no more than the whole"))
    }

    /// Reads a JSON number by value; `None` for anything that is negative, too fine, too large or no JSON number.
    pub fn parse(text: &str) -> Option<Quantity> {
        let bytes = text.as_bytes();
        let (negative, unsigned) = match bytes.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, bytes),
        };
        let digits = |from: &[u8]| from.iter().take_while(|b| b.is_ascii_digit()).count();
        let whole_length = digits(unsigned);
        let (whole, mut rest) = unsigned.split_at(whole_length);
        if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let mut fraction: &[u8] = &[];
        if let Some((b'.', after)) = rest.split_first() {
            let length = digits(after);
            if length == 0 {
                return None;
            }
            (fraction, rest) = after.split_at(length);
        }
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', after)) => exponent(after)?,
            Some(_) => return None,
        };
        let value = scaled(whole, fraction, exponent)?;
        if negative && value != 0 {
            return None;
        }
        Some(Quantity(value))
    }
}

/// The exponent of a JSON number, held within bounds that no `i64` of millionths passes.
fn exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1, rest),
        (b'+', rest) => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(digit - b'0')).min(i64::from(i32::MAX));
    }
    Some(sign * value)
}

/// `whole.fraction * 10^exponent` in millionths.
fn scaled(whole: &[u8], fraction: &[u8], exponent: i64) -> Option<i64> {
    let mut value = 0i64;
    // The power of ten that the digit at hand stands for, in millionths.
    let mut power = i64::try_from(whole.len()).ok()? - 1 + exponent + DECIMALS;
    for digit in whole.iter().chain(fraction) {
        let digit = i64::from(digit - b'0');
        if digit != 0 {
            let unit = 10i64.checked_pow(u32::try_from(power).ok()?)?;
            value = value.checked_add(digit.checked_mul(unit)?)?;
        }
        power -= 1;
    }
    Some(value)
}

impl fmt::Display for Quantity {
    /// A JSON number without exponent and without trailing zeros after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / ONE)?;
        let mut fraction = self.0 % ONE;
        if fraction == 0 {
            return Ok(());
        }
        let mut width = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        let number = Box::<RawValue>::deserialize(deserializer)?;
        Quantity::parse(number.get()).ok_or_else(|| serde::de::Error::custom(format!("{number} is no quantity")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_by_value_and_refuses_what_does_not_fit() {
        for (text, millionths) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-0.000e5", Some(0)),
            ("5", Some(5_000_000)),
            ("5.0", Some(5_000_000)),
            ("1.0000000", Some(1_000_000)),
            ("1e2", Some(100_000_000)),
            ("1E+2", Some(100_000_000)),
            ("125e-2", Some(1_250_000)),
            ("0.000001", Some(1)),
            ("1e-6", Some(1)),
            ("10e-7", Some(1)),
            ("0.0000001", None),
            ("1e-7", None),
            ("0e999999999999", Some(0)),
            ("1e999999999999", None),
            ("9223372036854.775807", Some(i64::MAX)),
            ("9223372036854.775808", None),
            ("-1", None),
            ("", None),
            ("-", None),
            ("01", None),
            ("1.", None),
            (".5", None),
            ("1e", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("NaN", None),
            ("0x10", None),
        ] {
            assert_eq!(Quantity::parse(text).map(Quantity::millionths), millionths, "{text:?}");
        }
    }

    #[test]
    fn is_written_without_exponent_and_trailing_zeros() {
        for (millionths, text) in
            [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (100_000_000, "100"), (i64::MAX, "9223372036854.775807")]
        {
            assert_eq!(Quantity::from_millionths(millionths).to_string(), text);
        }
    }
}
