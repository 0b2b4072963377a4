//! An answer in the making, with its guide.

use crate::generation::{Generation, Step};
use crate::guide::{Ended, Flow, Guide};
use crate::tree::Owner;

/// One answer.
pub(super) struct Answering {
    /// That of the reading it came from: the older, the longer it has been promised.
    pub number: u64,
    pub owner: Owner,
    pub generation: Generation,
    pub guide: Box<dyn Guide>,
    /// Where the last state on its path was kept.
    pub kept_at: usize,
}

impl Answering {
    /// Chooses the next token and shows it to the guide; the way it ended, if it did.
    pub fn choose(&mut self) -> Option<Ended> {
        let allowed = if self.generation.is_forced() { Ok(None) } else { self.guide.allowed() };
        let step = match allowed.and_then(|mask| self.generation.choose(mask)) {
            Ok(step) => step,
            Err(error) => return Some(Ended::Failed(error)),
        };
        match step {
            Step::Finished(finish) => return Some(Ended::Finished(finish)),
            Step::Token(token) => match self.guide.token(&token) {
                Flow::Continue => {}
                Flow::Force(tokens) => self.generation.force(&tokens),
                Flow::Stop => return Some(Ended::Stopped),
            },
        }
        // Said at once: the client need not wait for the others' next token.
        match self.generation.is_over() {
            true => match self.generation.choose(None) {
                Ok(Step::Finished(finish)) => Some(Ended::Finished(finish)),
                Ok(Step::Token(_)) => None,
                Err(error) => Some(Ended::Failed(error)),
            },
            false => None,
        }
    }
}
