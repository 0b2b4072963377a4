//! What the scheduler is given to do, and how it refuses.

use std::fmt;

use tangelo_core::TokenId;

use crate::error::{Error, Result};
use crate::generation::Limits;
use crate::guide::{Ended, Guide};
use crate::sampling::SamplingParams;
use crate::sequence::Kept;
use crate::tree::Owner;

/// A prompt and what is to become of it.
#[derive(Debug)]
pub struct Job {
    /// Whose it is: states are found and left among those of this owner.
    pub owner: Owner,
    /// The tokens; at least one.
    pub prompt: Vec<TokenId>,
    /// Numbers of tokens of the prompt after which a state is worth keeping, increasing.
    pub cuts: Vec<usize>,
    /// What for.
    pub work: Work,
}

/// What a prompt is read for.
pub enum Work {
    /// One answer per branch. The prompt is read once and forked.
    Answer(Vec<Branch>),
    /// Only for its states.
    Warm {
        /// Whether somebody waits. Otherwise it is done when there is nothing else to do.
        is_urgent: bool,
        /// Is given the state after the prompt.
        done: Done<std::result::Result<Kept, Ended>>,
    },
    /// The mean, over all tokens, of what the final norm makes of the last layer's output, (d).
    Embed(Done<Result<Vec<f32>>>),
}

/// Is called once with the outcome, on the scheduler's thread.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// One answer to a prompt.
pub struct Branch {
    /// How to choose tokens.
    pub params: SamplingParams,
    /// When to stop.
    pub limits: Limits,
    /// Whose it is.
    pub guide: Box<dyn Guide>,
}

/// Why a job was not taken. The job is gone; its guides have not been told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// As many jobs wait as may.
    #[error("{waiting} requests are waiting already: try again later")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// No new work is taken any more.
    #[error("the program is shutting down")]
    Closing,
    /// It could never be done.
    #[error(transparent)]
    Impossible(#[from] Error),
}

impl Work {
    /// Number of answers that it will be.
    pub(super) fn width(&self) -> usize {
        match self {
            Work::Answer(branches) => branches.len(),
            Work::Warm { .. } | Work::Embed(_) => 1,
        }
    }

    /// Whether anybody still wants it; those branches that nobody wants end here.
    pub(super) fn drop_unwanted(&mut self) -> bool {
        let Work::Answer(branches) = self else { return true };
        let (wanted, unwanted) =
            std::mem::take(branches).into_iter().partition(|b: &Branch| b.guide.is_wanted());
        *branches = wanted;
        unwanted.into_iter().for_each(|mut branch: Branch| branch.guide.ended(Ended::Cancelled));
        !branches.is_empty()
    }

    /// Ends it without a result.
    pub(super) fn cancel(self) {
        match self {
            Work::Answer(branches) => {
                branches.into_iter().for_each(|mut branch| branch.guide.ended(Ended::Cancelled));
            }
            Work::Warm { done, .. } => done(Err(Ended::Cancelled)),
            Work::Embed(done) => done(Err(Error::Cancelled)),
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Answer(branches) => f.debug_tuple("Answer").field(&branches.len()).finish(),
            Work::Warm { is_urgent, .. } => f.debug_struct("Warm").field("is_urgent", is_urgent).finish(),
            Work::Embed(_) => f.write_str("Embed"),
        }
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch").field("limits", &self.limits).finish_non_exhaustive()
    }
}
