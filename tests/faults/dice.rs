//! Chance that a seed repeats (SplitMix64).

/// A die.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same throws for the same seed.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Another die, whose throws do not depend on how often this one is thrown from now on.
    pub(crate) fn apart(&mut self) -> Dice {
        Dice(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `from..until`.
    pub(crate) fn range(&mut self, from: i64, until: i64) -> i64 {
        from + i64::try_from(self.next() % u64::try_from(until - from).expect("a range")).expect("within it")
    }

    /// Whether something happens that does so `times` in a thousand.
    pub(crate) fn in_thousand(&mut self, times: i64) -> bool {
        self.range(0, 1_000) < times
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.range(0, choices.len() as i64)).expect("an index")]
    }
}
