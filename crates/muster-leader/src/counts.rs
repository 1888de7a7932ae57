//! What was counted since the term began, for metrics. Nothing is decided by it.

use crate::leader::Waiting;
use muster_registry::Outcome;
use std::collections::BTreeMap;

/// Words of clients by whether they were of use, and what became of operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of agents about tasks.
    pub updates: Pair,
    /// Of frameworks that took one as received.
    pub acknowledgements: Pair,
    /// The same of operations' statuses.
    pub operation_acknowledgements: Pair,
    /// Bytes of frameworks for executors.
    pub messages_down: Pair,
    /// Bytes of executors for frameworks.
    pub messages_up: Pair,
    /// Words of whom was not known, or not any more.
    pub dropped: u64,
    /// Operations that are no launch, of frameworks and operators, by kind: those that were done, those that were refused.
    pub operations: BTreeMap<&'static str, Pair>,
}

/// How many were of use, and how many were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pair {
    /// Were of use.
    pub valid: u64,
    /// Were not.
    pub invalid: u64,
}

impl Pair {
    pub(crate) fn count(&mut self, is_valid: bool) {
        *if is_valid { &mut self.valid } else { &mut self.invalid } += 1;
    }

    fn add(&mut self, other: Self) {
        self.valid += other.valid;
        self.invalid += other.invalid;
    }
}

impl Counts {
    /// Counts what was counted elsewhere, too.
    pub fn add(&mut self, other: &Self) {
        self.updates.add(other.updates);
        self.acknowledgements.add(other.acknowledgements);
        self.operation_acknowledgements.add(other.operation_acknowledgements);
        self.messages_down.add(other.messages_down);
        self.messages_up.add(other.messages_up);
        self.dropped += other.dropped;
        for (kind, pair) in &other.operations {
            self.operations.entry(kind).or_default().add(*pair);
        }
    }

    /// What came out of the log of what waited for it.
    pub(crate) fn came_out(&mut self, waiting: &Waiting, outcome: &Outcome) {
        let is_done = matches!(outcome, Outcome::Done);
        match waiting {
            Waiting::Acknowledge { operation: false, .. } => self.acknowledgements.count(is_done),
            Waiting::Acknowledge { operation: true, .. } => self.operation_acknowledgements.count(is_done),
            Waiting::Convert { kind, .. } => self.operations.entry(kind).or_default().count(is_done),
            Waiting::Accept(accepting) => {
                let Outcome::Operated(outcome) = outcome else { return };
                for (kind, operation) in accepting.kinds.iter().zip(&outcome.operations) {
                    use muster_model::OperationBecame::Finished;
                    let pair = self.operations.entry(kind).or_default();
                    pair.count(matches!(operation.became, Finished(_)));
                }
            }
            _ => {}
        }
    }
}
