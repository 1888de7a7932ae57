//! What must hold. Each checker says what is wrong, nothing if nothing is.

mod acknowledged;
mod answers;
mod disks;
mod durability;
mod faults;
mod frameworks;
mod launches;
mod logs;
mod members;
mod offers;
mod operators;
mod outcomes;
mod reads;
mod resources;
#[cfg(test)]
pub(crate) mod samples;
mod service;
mod sets;
mod updates;

pub use acknowledged::not_sent_again;
pub use answers::{answers_agree, questions_answered};
pub use durability::{committed_kept, one_state_at_an_index};
pub use frameworks::{framework_ids, torn_down_once};
pub use launches::{ended_otherwise, lost_launches, phantom_starts, started_twice, wrong_agent};
pub use logs::{launches_as_logged, logs_agree, offers_once, removed_once, terms_ascend};
pub use members::{agent_ids, logs_and_leftovers, nemeses_bit, replicas_equal, tasks_left, two_leaders};
pub use offers::offers_apart;
pub use operators::operators_obeyed;
pub use outcomes::{answered_as_logged, deposed_as_logged};
pub use reads::reads_current;
pub use resources::{overcommitted_by_marks, overcommitted_by_samples};
pub use service::{comes_to_its_end, service_returns};
pub use sets::{one_in_a_slot, runs_on, slots_filled};
pub use updates::{missing_terminals, out_of_order, undecided};

use crate::history::Entry;
use crate::model::Truth;

/// A promise and the function that checks it.
pub type Checker = fn(&[Entry], &Truth) -> Vec<String>;

/// Each promise with what is wrong about it.
pub type Verdict = Vec<(&'static str, Vec<String>)>;

/// All of them, by name.
pub const ALL: &[(&str, Checker)] = &[
    ("service returns in time", service_returns),
    ("no acknowledged launch is lost", lost_launches),
    ("what ran comes to the end that it came to itself", ended_otherwise),
    ("no task is started twice", started_twice),
    ("nothing runs that was refused or never asked for", phantom_starts),
    ("a task runs on the agent it was offered", wrong_agent),
    ("no agent is overcommitted, by its leader's word", overcommitted_by_samples),
    ("no agent is overcommitted, by the tasks' own word", overcommitted_by_marks),
    ("no resource is in two live offers", offers_apart),
    ("every terminal update reaches its framework", missing_terminals),
    ("what was acknowledged is not sent again", not_sent_again),
    ("updates of a task come in order", out_of_order),
    ("every launch is decided in the end", undecided),
    ("every question is answered", questions_answered),
    ("answers agree with what is known", answers_agree),
    ("a set has one task in each slot in the end", slots_filled),
    ("a task that nobody ends runs on, one that is ended does not", runs_on),
    ("a slot never has two tasks at once", one_in_a_slot),
    ("framework ids survive", framework_ids),
    ("a framework is torn down once, when its time is over", torn_down_once),
    ("agent ids survive", agent_ids),
    ("a term has one leader", two_leaders),
    ("reads that claim to be current are", reads_current),
    ("operators' calls are done once, for all to see", operators_obeyed),
    ("the replicas are equal", replicas_equal),
    ("what was committed is not lost", committed_kept),
    ("an index has one state, whoever is asked and whenever", one_state_at_an_index),
    ("the replicas' logs agree, and did the same", logs_agree),
    ("an offer is used once, in its own term", offers_once),
    ("frameworks are told what the log says", launches_as_logged),
    ("what is answered as done is in every log", answered_as_logged),
    ("a deposed leader answers nothing but what the log says", deposed_as_logged),
    ("no framework is torn down twice, by the log", removed_once),
    ("terms begin once, in order", terms_ascend),
    ("no task is left", tasks_left),
    ("logs hold no error, nothing is left over", logs_and_leftovers),
    ("the nemesis bit", nemeses_bit),
];

/// What a run that broke off is judged by: those that need not know how it ended.
pub const ANY_TIME: &[(&str, Checker)] = &[
    ("service returns, and the run comes to its end", comes_to_its_end),
    ("service returns in time", service_returns),
    ("no task is started twice", started_twice),
    ("what was acknowledged is not sent again", not_sent_again),
    ("answers agree with what is known", answers_agree),
    ("a task that nobody ends runs on, one that is ended does not", runs_on),
    ("a slot never has two tasks at once", one_in_a_slot),
    ("what is answered as done is in every log", answered_as_logged),
    ("a term has one leader", two_leaders),
    ("framework ids survive", framework_ids),
    ("agent ids survive", agent_ids),
    ("reads that claim to be current are", reads_current),
    ("what was committed is not lost", committed_kept),
    ("an index has one state, whoever is asked and whenever", one_state_at_an_index),
    ("the replicas' logs agree, and did the same", logs_agree),
    ("an offer is used once, in its own term", offers_once),
    ("no framework is torn down twice, by the log", removed_once),
    ("terms begin once, in order", terms_ascend),
];

/// Those that can judge a run of which this is known.
pub fn those_for(truth: &Truth) -> &'static [(&'static str, Checker)] {
    if truth.broken_off.is_some() { ANY_TIME } else { ALL }
}

/// Runs all that can judge it; the verdict is good when every list is empty.
pub fn check(history: &[Entry], truth: &Truth) -> Verdict {
    those_for(truth).iter().map(|(name, checker)| (*name, checker(history, truth))).collect()
}
