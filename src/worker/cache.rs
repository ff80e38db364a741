//! Accounts kept in memory between batches, within a limit. What is not here is loaded again.

use rustc_hash::FxHashMap;

use crate::domain::Account;

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

    /// Puts the accounts of a batch back, without the buckets of so long before their latest usage, in microseconds. Lets
    /// the oldest go when they are more than `limit` bytes together.
    pub(super) fn put(&mut self, accounts: impl Iterator<Item = Account>, limit: usize, look_back: i64) {
        self.now += 1;
        for mut account in accounts {
            account.shed(look_back);
            let size = account.size();
            self.size += size;
            self.accounts.insert(account.customer(), Cached { account, size, used: self.now });
        }
        if self.size > limit {
            self.shrink(limit / 4 * 3);
        }
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
