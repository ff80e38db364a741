//! The accounts that a batch works on: how far back each must reach, and where they come from, memory or the store.

use rustc_hash::{FxHashMap, FxHashSet};

use super::batch::Batch;
use super::partition::{Context, Partition};
use crate::domain::{Account, Instant, Reference};
use crate::store::{LedgerKey, StoreError, Wanted};

impl Context {
    /// An instant before which late usage is not expected, given the latest that there is. Usage of times to come, by a clock that is
    /// wrong, changes nothing of that.
    pub(super) fn keep_from(&self) -> impl Fn(Instant) -> Instant + use<> {
        let (now, back) = ((self.now)(), self.look_back());
        move |latest| back(latest.min(now))
    }

    /// An instant so much before another one as accounts in memory reach back.
    fn look_back(&self) -> impl Fn(Instant) -> Instant + use<> {
        let micros = i64::try_from(self.look_back.as_micros()).unwrap_or(i64::MAX);
        move |instant| Instant::from_micros(instant.micros().saturating_sub(micros))
    }
}

impl Partition {
    /// The accounts of these customers, by customer, reaching as far back as wanted.
    pub(super) async fn accounts_of(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Account>, StoreError> {
        let mut accounts = Vec::with_capacity(wanted.len());
        let (mut missing, mut short) = (Vec::new(), FxHashMap::default());
        let back = self.context.look_back();
        for Wanted { customer, since } in wanted {
            match self.cache.take(customer) {
                Some(account) if account.reaches(since) => accounts.push(account),
                known => {
                    short.extend(known.map(|account| (customer, account)));
                    missing.push(Wanted { customer, since: since.map(&back) });
                }
            }
        }
        if !missing.is_empty() {
            let images = self.context.patiently(|| self.context.store.accounts(self.partition, &missing)).await?;
            let known: FxHashSet<i64> = images.iter().map(|image| image.customer).collect();
            accounts.extend(images.into_iter().map(|image| match short.remove(&image.customer) {
                Some(known) => known.reaching_back(image, &self.context.calendar),
                None => Account::restore(image, &self.context.calendar),
            }));
            let new = missing.into_iter().map(|wanted| wanted.customer).filter(|customer| !known.contains(customer));
            accounts.extend(new.map(Account::new));
            accounts.sort_unstable_by_key(Account::customer);
        }
        Ok(accounts)
    }

    /// How far back it must know the accounts of a batch, by customer: to the earliest usage that comes or is reversed. To
    /// the beginning where assignments may change, where a billing cycle may while something is held, and of customers who
    /// catch up.
    pub(super) fn wanted(&self, batch: &Batch, behind: &[i64]) -> Vec<Wanted> {
        let of = |key: &LedgerKey| Wanted { customer: key.customer, since: Some(key.position.start) };
        // The usage of a customer is in order.
        let mut wanted: Vec<Wanted> = batch.usage.iter().map(|usage| of(&usage.key)).collect();
        wanted.dedup_by_key(|wanted| wanted.customer);
        wanted.extend(batch.reversals.iter().map(|reversal| of(&reversal.key)));
        let now = (self.context.now)();
        wanted.extend(batch.references.iter().map(|reference| {
            let releases_nothing = self.totals.held == 0 && matches!(reference.fact, Reference::Customer(_));
            let is_whole = reference.fact.may_need_all_buckets() && !releases_nothing;
            Wanted { customer: reference.customer, since: (!is_whole).then_some(now) }
        }));
        wanted.extend(behind.iter().copied().map(Wanted::whole));
        wanted.sort_unstable();
        wanted.dedup_by_key(|wanted| wanted.customer);
        wanted
    }
}
