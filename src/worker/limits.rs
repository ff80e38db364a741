//! How large batches become, and how many there are: what a worker's memory and the cost of a record both follow from. Large
//! ones cost less for each record. Each customer's account is in memory while a batch is applied, and takes more than a
//! customer's records do, so that customers have a limit of their own.

use super::batch::Batch;

/// Limits of batches.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Records in one batch.
    pub records: usize,
    /// Customers in one batch.
    pub customers: usize,
    /// Bytes of one batch; the last record may pass it.
    pub bytes: usize,
    /// Batches that exist at a time, over all partitions.
    pub batches: usize,
}

impl BatchLimits {
    /// How many more records a batch may take; 0 once it is full.
    pub(super) fn room(&self, batch: &Batch) -> usize {
        let is_full = batch.size() >= self.bytes || batch.customers() >= self.customers;
        if is_full { 0 } else { self.records.saturating_sub(batch.len()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::batch::Input;
    use super::*;
    use crate::domain::Partitioner;
    use crate::events::{Record, Rules};

    #[test]
    fn a_batch_is_full_of_records_of_customers_or_of_bytes() {
        let rules = Rules {
            partitioner: Partitioner::Murmur2,
            partitions: 1,
            max_future: Duration::ZERO,
            retention: Duration::ZERO,
        };
        let mut batch = Batch::new(0);
        for (offset, customer) in (0..).zip(["1", "2", "1", "1"]) {
            let (key, headers) = (Some(customer.as_bytes()), std::iter::empty());
            let record = Record { partition: 0, timestamp: None, key, value: None, headers };
            batch.push(Input::Usage, offset, &record, &rules);
        }
        let room = |records, customers, bytes| BatchLimits { records, customers, bytes, batches: 1 }.room(&batch);
        assert_eq!(room(10, 10, 1 << 20), 6, "of ten records four are there");
        assert_eq!(room(10, 3, 1 << 20), 6, "of three customers two are there, and more of theirs may come");
        assert_eq!([room(4, 10, 1 << 20), room(10, 2, 1 << 20), room(10, 10, batch.size())], [0; 3]);
        assert_eq!(BatchLimits { records: 4, customers: 2, bytes: 1 << 20, batches: 1 }.room(&batch.emptied(0)), 4);
    }
}
