//! A partition pair that stands still, since a topic does not have the offset to go on from: noted in the store, so that
//! nobody goes on by chance once the topic has such an offset again, until an operator accepts the gap.

use tracing::error;

use super::batch::Input;
use super::partition::Context;
use super::task::Shared;
use crate::store::{Gaps, StoreError};
use crate::stream::{self, Gap};

/// Why a partition pair stands still.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) gaps: Gaps,
    /// Whether the store knows.
    noted: bool,
    /// What is missing, in one line.
    pub(super) line: String,
}

impl Stop {
    /// Whether it is this input's position that is not there.
    pub(super) fn is_of(&self, input: Input) -> bool {
        match input {
            Input::Usage => self.gaps.usage,
            Input::Assignments => self.gaps.assignments,
        }
    }
}

impl Shared {
    /// Stops, as the topic does not have the position; `noted`: the store knew it.
    pub(super) fn stop_at(&self, gap: &Gap, noted: bool) {
        let mut stop = self.stop();
        let mut gaps = stop.as_ref().map(|stop| stop.gaps).unwrap_or_default();
        match gap.input {
            stream::Input::Usage => gaps.usage = true,
            stream::Input::Assignments => gaps.assignments = true,
        }
        let line = format!("{gap}. The partition stands still until `{}`", gap.way_out());
        error!("{line}");
        let line = stop.take().map_or(line.clone(), |before| format!("{}; {line}", before.line));
        *stop = Some(Stop { gaps, noted, line });
    }

    /// Notes in the store that it stands still, unless that is done. True: the partition pair was taken anew since, or
    /// its gap was accepted, so it is to be taken again.
    pub(super) async fn note_stop(&self, context: &Context) -> Result<bool, StoreError> {
        let Some(stop) = self.stop().clone() else { return Ok(false) };
        if stop.noted {
            let all = context.store.progress().await?;
            return Ok(all.iter().any(|one| one.partition == self.partition && one.epoch != self.epoch));
        }
        let own = context.store.note_gaps(self.partition, self.epoch, stop.gaps).await?;
        if let Some(now) = &mut *self.stop() {
            now.noted = now.gaps == stop.gaps;
        }
        Ok(!own)
    }
}
