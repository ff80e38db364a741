//! Records of how many customers are applied at once, so that their accounts take about so much memory: an account is as
//! large as the number of its buckets, which is not known before it is loaded. Most are loaded without those of long ago.

/// How many customers to begin with, while nothing is known.
const FIRST: usize = 250;
/// How many times as many the next may be.
const GROWTH: usize = 4;

/// What accounts are taken to be like, by what those before were like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portion {
    /// How many bytes the accounts of one commit may take.
    limit: usize,
    /// About how many bytes one takes without the buckets of long ago.
    recent: usize,
    /// About how many bytes one takes with all of them.
    whole: usize,
}

impl Portion {
    /// Few customers, since the accounts may be large; those of one commit may take so many bytes.
    pub(super) fn new(limit: usize) -> Portion {
        let size = (limit / FIRST).max(1);
        Portion { limit, recent: size, whole: size }
    }

    /// About how many bytes an account takes, with or without the buckets of long ago.
    pub(super) fn size(self, is_whole: bool) -> usize {
        if is_whole { self.whole } else { self.recent }
    }

    /// One of so many bytes, with accounts of these sizes.
    #[cfg(test)]
    pub(super) fn of_sizes(limit: usize, recent: usize, whole: usize) -> Portion {
        Portion { limit, recent, whole }
    }

    /// One of so many customers.
    #[cfg(test)]
    pub(super) fn of_customers(customers: usize) -> Portion {
        Portion::of_sizes(customers, 1, 1)
    }

    /// Whether accounts of that many bytes may be in memory for one commit.
    pub(super) fn holds(self, bytes: usize) -> bool {
        bytes <= self.limit
    }

    /// Notes how many bytes so many accounts took, without the buckets of long ago and with them.
    pub(super) fn note(&mut self, accounts: usize, recent: usize, whole: usize) {
        if accounts > 0 {
            let next = |size: usize, all: usize| all.div_ceil(accounts).max(size / GROWTH).max(1);
            self.recent = next(self.recent, recent);
            self.whole = next(self.whole, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_accounts_make_small_portions() {
        let limit = 24 << 20;
        let mut portion = Portion::new(limit);
        let mut note = |accounts, recent, whole| {
            portion.note(accounts, recent, whole);
            [false, true].map(|is_whole| limit / portion.size(is_whole))
        };
        let small: Vec<[usize; 2]> = (0..3).map(|_| note(100, 200_000, 800_000)).collect();
        assert_eq!(
            small,
            [[1_000, 1_000], [4_000, 3_145], [12_582, 3_145]],
            "it grows step by step, to as many as fit"
        );
        assert_eq!(note(100, 10_000_000, 10_000_000), [251, 251], "at once, when accounts are larger");
        assert_eq!(note(0, 0, 0), [251, 251], "nobody's accounts say nothing");
        assert_eq!(note(1, 1 << 30, 1 << 30), [0, 0], "not even one");
    }
}
