//! Accounts kept in memory between batches, within a limit. What is not here is loaded again.

use rustc_hash::FxHashMap;

use crate::domain::{Account, Instant};

/// Accounts by customer. Those used longest ago go first when the limit is passed.
#[derive(Debug, Default)]
pub(super) struct Cache {
    accounts: FxHashMap<i64, Cached>,
    size: usize,
    /// Counts batches: the age of what was used.
    now: u64,
}

#[derive(Debug)]
struct Cached {
    account: Account,
    size: usize,
    used: u64,
}

impl Cache {
    /// Takes an account out for a batch.
    pub(super) fn take(&mut self, customer: i64) -> Option<Account> {
        let cached = self.accounts.remove(&customer)?;
        self.size -= cached.size;
        Some(cached.account)
    }

    /// Puts the accounts of a batch back, without buckets of before what `keep_from` says of their latest usage. Lets the
    /// oldest go when they are more than `limit` bytes together. Returns how many bytes the batch's are.
    pub(super) fn put(
        &mut self,
        accounts: impl Iterator<Item = Account>,
        limit: usize,
        keep_from: impl Fn(Instant) -> Instant,
    ) -> usize {
        self.now += 1;
        let before = self.size;
        for mut account in accounts {
            if let Some(latest) = account.latest_usage() {
                account.shed(keep_from(latest));
            }
            let size = account.size();
            self.size += size;
            self.accounts.insert(account.customer(), Cached { account, size, used: self.now });
        }
        let put = self.size - before;
        if self.size > limit {
            self.shrink(limit / 4 * 3);
        }
        put
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Cache::default();
    }

    /// Goes well below the limit, so that it is seldom done.
    fn shrink(&mut self, limit: usize) {
        let mut ages: Vec<(u64, i64)> =
            self.accounts.iter().map(|(customer, cached)| (cached.used, *customer)).collect();
        ages.sort_unstable();
        for (_, customer) in ages {
            if self.size <= limit {
                break;
            }
            self.take(customer);
        }
    }
}
