//! Control totals of a partition (`domain.md section 9`, `headroom totals`): what an auditor holds against the topics.

use std::fmt;

use super::facts::ChargingType;

/// Sums are of millionths, in `i128` since they pass what one quantity may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Usage events that count.
    pub counted: i64,
    /// Usage events held and not reversed.
    pub held: i64,
    /// Usage events received and reversed.
    pub reversed: i64,
    /// Quantity of the counted ones, by charging type's number.
    pub quantity: [i128; 3],
    /// Allowance less remaining over all buckets not by value, by charging type's number.
    pub drawn: [i128; 3],
    /// The same over the buckets by value.
    pub drawn_by_value: [i128; 3],
    /// `balance.threshold.crossed` alerts ever raised.
    pub crossed: i64,
    /// `balance.threshold.recovered` alerts ever raised.
    pub recovered: i64,
}

impl fmt::Display for Totals {
    /// For a person who looks for a difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { counted, held, reversed, quantity, drawn, drawn_by_value, crossed, recovered } = self;
        write!(
            f,
            "counted {counted}, held {held}, reversed {reversed}, quantity {}, drawn {}, drawn by value {}, \
             crossed {crossed}, recovered {recovered}",
            Sums(quantity),
            Sums(drawn),
            Sums(drawn_by_value)
        )
    }
}

/// Sums by charging type.
struct Sums<'a>(&'a [i128; 3]);

impl fmt::Display for Sums<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (kind, sum) in ChargingType::ALL.into_iter().zip(self.0) {
            write!(f, "{comma}{} {}", kind.name(), decimal(*sum))?;
            comma = " ";
        }
        Ok(())
    }
}

/// Millionths as a JSON number, exactly: no exponent, no trailing zeros after the point.
pub fn decimal(millionths: i128) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let (whole, fraction) = (millionths.unsigned_abs() / 1_000_000, millionths.unsigned_abs() % 1_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:06}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.counted += other.counted;
        self.held += other.held;
        self.reversed += other.reversed;
        self.crossed += other.crossed;
        self.recovered += other.recovered;
        for kind in 0..3 {
            self.quantity[kind] += other.quantity[kind];
            self.drawn[kind] += other.drawn[kind];
            self.drawn_by_value[kind] += other.drawn_by_value[kind];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        for (millionths, text) in [
            (0, "0"),
            (-1, "-0.000001"),
            (-2_500_000, "-2.5"),
            (10_000_000, "10"),
            (i128::MAX, "170141183460469231731687303715884.105727"),
        ] {
            assert_eq!(decimal(millionths), text);
        }
    }

    #[test]
    fn totals_are_told_with_their_units() {
        let totals = Totals { counted: 2, quantity: [1_500_000, 0, 0], drawn: [0, -1, 0], ..Totals::default() };
        let told = "counted 2, held 0, reversed 0, quantity DURATION 1.5 MB 0 ONE_OFF 0, drawn DURATION 0 MB -0.000001 \
                    ONE_OFF 0, drawn by value DURATION 0 MB 0 ONE_OFF 0, crossed 0, recovered 0";
        assert_eq!(totals.to_string(), told);
    }
}
