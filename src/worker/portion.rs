//! Of how many customers records are applied at once, so that their accounts take about so much memory: an account is as
//! large as the number of its buckets, which is not known before it is loaded.

/// How many to begin with, while nothing is known.
const FIRST: usize = 250;
/// How many times as many the next may be.
const GROWTH: usize = 4;

/// So many customers, by what the accounts of those before were like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portion(usize);

impl Portion {
    /// Few, since the accounts may be large.
    pub(super) fn new() -> Portion {
        Portion(FIRST)
    }

    /// The most customers whose records are applied at once.
    pub(super) fn customers(self) -> usize {
        self.0
    }

    /// Notes how large some accounts were, of which those of one commit may take so many bytes.
    pub(super) fn note(&mut self, accounts: usize, bytes: usize, limit: usize) {
        if accounts > 0 {
            let fit = limit / bytes.div_ceil(accounts).max(1);
            self.0 = fit.clamp(1, self.0.saturating_mul(GROWTH));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_accounts_make_small_portions() {
        let mut portion = Portion::new();
        let mut note = |accounts, bytes| {
            portion.note(accounts, bytes, 24 << 20);
            portion.customers()
        };
        let small: Vec<usize> = (0..3).map(|_| note(100, 200_000)).collect();
        assert_eq!(small, [1_000, 4_000, 12_582], "it grows step by step, to as many as fit");
        assert_eq!(note(100, 10_000_000), 251, "at once, when accounts are larger");
        assert_eq!(note(0, 0), 251, "nobody's accounts say nothing");
        assert_eq!(note(1, 1 << 30), 1, "one is always applied");
        assert_eq!(note(3, 0), 4);
    }
}
