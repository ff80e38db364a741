//! Batches that were applied, kept for their buffers: what a backlog brings is of one size, and memory that is given
//! back to the system and taken again costs more than the copying into it.

use std::sync::Mutex;

use super::batch::Batch;
use super::intake::lock;

/// The most that are kept.
const KEPT: usize = 4;

/// Emptied batches.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Batch>>);

impl Spares {
    /// An empty batch of a partition pair.
    pub(super) fn take(&self, partition: i32) -> Batch {
        let spare = lock(&self.0).pop();
        spare.map_or_else(|| Batch::new(partition), |spare| spare.emptied(partition))
    }

    /// Takes a batch that is done with.
    pub(super) fn give(&self, batch: Batch) {
        let mut spares = lock(&self.0);
        if spares.len() < KEPT {
            spares.push(batch);
        }
    }
}
