//! Control totals of a partition (`domain.md section 9`, `headroom totals`): what an auditor holds against the topics.

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
