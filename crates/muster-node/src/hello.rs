//! What fits into a hello, which is one frame of 4 MiB at most: every task that the agent holds, and as many unconfirmed
//! updates as there is room for.

use crate::node::Node;
use muster_model::{Label, Resources, StatusUpdate, TaskKey, Value};

/// All of a hello, in bytes.
const HELLO_BYTES_MAX: usize = 15 << 18;
/// Its updates.
const UPDATES_BYTES_MAX: usize = 1 << 20;
/// What is left for updates, and for tasks that were refused, where tasks take all they may.
const SPARE_BYTES: usize = 1 << 18;

impl Node {
    /// Whether one more task of this size can be listed.
    pub(crate) fn can_list(&self, bytes: usize) -> bool {
        self.listed_bytes + bytes + self.config.sealed.len() <= HELLO_BYTES_MAX - SPARE_BYTES
    }

    /// By how many bytes too many are listed: of tasks that were refused, of which there may be any number.
    pub(crate) fn listed_too_much(&self) -> usize {
        (self.listed_bytes + self.config.sealed.len()).saturating_sub(HELLO_BYTES_MAX)
    }

    /// How many bytes of updates there is room for.
    pub(crate) fn room_for_updates(&self) -> usize {
        let room = HELLO_BYTES_MAX.saturating_sub(self.listed_bytes + self.config.sealed.len());
        room.min(UPDATES_BYTES_MAX)
    }
}

/// About what an update takes on the wire.
pub(crate) fn update_bytes(update: &StatusUpdate) -> usize {
    128 + key_bytes(&update.task) + update.status.message.len() + update.status.sealed.len()
}

/// About what a task takes, without updates.
pub(crate) fn task_bytes(task: &TaskKey, resources: &Resources) -> usize {
    let amounts = resources.iter_labelled().map(|(name, label, value)| {
        let value = match value {
            Value::Scalar(_) => 12,
            Value::Ranges(ranges) => 24 * ranges.len(),
            Value::Set(items) => items.iter().map(|item| 8 + item.len()).sum(),
        };
        16 + name.len() + value + label.map_or(0, label_bytes)
    });
    64 + key_bytes(task) + amounts.sum::<usize>()
}

fn key_bytes(task: &TaskKey) -> usize {
    task.framework_id.as_str().len() + task.task_id.as_str().len()
}

fn label_bytes(label: &Label) -> usize {
    let reservations = label.reservations.iter().map(|one| {
        let labels =
            one.labels.iter().map(|(key, value)| 8 + key.len() + value.as_ref().map_or(0, |it| it.len()));
        16 + one.role.as_str().len() + one.principal.as_ref().map_or(0, |it| it.len()) + labels.sum::<usize>()
    });
    let volume = label.volume.as_ref().map_or(0, |one| {
        32 + one.id.as_str().len()
            + one.principal.as_ref().map_or(0, |it| it.len())
            + one.container_path.len()
    });
    volume + reservations.sum::<usize>()
}
