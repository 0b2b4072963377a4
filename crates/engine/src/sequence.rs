//! One sequence: its tokens, the state after them and the logits of the last one.
//!
//! All ways forward end in [`Model::forward`]: [`Sequence::prefill`] calls it once per chunk, [`Sequence::decode`]
//! for one token, [`advance`] once for many sequences. All ways back are copies of a state, which share the full
//! pages of the attention caches: a fork costs the recurrent state (tens of megabytes in a model of 4 billion
//! parameters) and a pointer per page.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tangelo_core::TokenId;
use tangelo_model::{LayerState, LogitRows, Model, Segment, State};
use tangelo_ops::Cx;
use tangelo_ops::attention::Elements;

use crate::error::{Error, Result};
use crate::logits::Logits;

/// Tokens per forward of a prefill unless the caller chooses: enough that reading and decoding the weights is a
/// small part of each forward, few enough that the activations of a model of 4 billion parameters stay near 20 MB and
/// that a caller who wants to stop does not wait for long.
pub const CHUNK_TOKENS: usize = 128;

/// A path of tokens with the model's state after them.
#[derive(Clone, Debug)]
pub struct Sequence {
    fingerprint: [u8; 32],
    tokens: Vec<TokenId>,
    state: State,
    /// Logits of the last token; `None` before the first one and after an interrupted prefill.
    logits: Option<Logits>,
}

/// A state to come back to: what [`Sequence::keep`] returns. It stays good after the sequence has moved on.
#[derive(Clone, Debug)]
pub struct Kept(Sequence);

/// The next tokens of one sequence of a batch.
#[derive(Debug)]
pub struct Advance<'a> {
    /// The sequence to advance.
    pub sequence: &'a mut Sequence,
    /// Its next tokens; with none the sequence stays as it is.
    pub tokens: &'a [TokenId],
    /// Whether the logits of the last one will be looked at. Computing them is a product with the whole vocabulary.
    pub wants_logits: bool,
}

/// Advances every sequence of the batch by its own number of tokens in one forward. Each one's logits are
/// afterwards those it would have had alone, bit for bit; it has none if it did not want them.
///
/// # Errors
/// If a sequence belongs to another model or a token is outside the vocabulary; no sequence has changed then.
pub fn advance(model: &Model, cx: &Cx, batch: &mut [Advance<'_>]) -> Result<()> {
    for part in batch.iter() {
        part.sequence.check(model, part.tokens)?;
    }
    let mut segments = Vec::with_capacity(batch.len());
    for Advance { sequence, tokens, wants_logits } in batch.iter_mut() {
        let logits = if tokens.is_empty() || !*wants_logits { LogitRows::None } else { LogitRows::Last };
        sequence.give_back_logits();
        segments.push(Segment { tokens, state: &mut sequence.state, logits });
    }
    let rows = model.forward(cx, &mut segments)?;
    drop(segments);
    let (mut rows, mut row) = (Some(rows), 0);
    for part in batch.iter_mut().filter(|part| !part.tokens.is_empty()) {
        let sequence = &mut *part.sequence;
        sequence.tokens.extend_from_slice(part.tokens);
        let old = sequence.logits.take();
        if !part.wants_logits {
            continue;
        }
        sequence.logits = match rows.take() {
            Some(only) if only.rows() == 1 => Some(Logits::of_only_row(cx, only, old)),
            Some(all) => {
                let logits = Logits::of_row(cx, &all, row, old);
                rows = Some(all);
                Some(logits)
            }
            None => None,
        };
        row += 1;
    }
    Ok(())
}

impl Sequence {
    /// The empty sequence.
    pub fn new(model: &Model) -> Sequence {
        Sequence {
            fingerprint: model.fingerprint(),
            tokens: Vec::new(),
            state: model.new_state(),
            logits: None,
        }
    }

    /// A sequence from its parts, as a file holds them; `logits` has one entry per token of the vocabulary.
    pub(crate) fn from_parts(
        model: &Model,
        tokens: Vec<TokenId>,
        state: State,
        logits: Option<Vec<f32>>,
    ) -> Sequence {
        let logits = logits.map(Logits::Host);
        Sequence { fingerprint: model.fingerprint(), tokens, state, logits }
    }

    /// Appends `tokens`, at most `chunk` of them per forward (0 counts as 1), which bounds the memory of activations
    /// and nothing else: the result does not depend on it. No tokens change nothing.
    ///
    /// # Errors
    /// If the sequence belongs to another model or a token is outside the vocabulary; it has not changed then.
    pub fn prefill(&mut self, model: &Model, cx: &Cx, tokens: &[TokenId], chunk: usize) -> Result<()> {
        self.prefill_with(model, cx, tokens, chunk, &mut |_| ControlFlow::Continue(())).map(drop)
    }

    /// [`Sequence::prefill`], calling `on_chunk` with the number of tokens done after every chunk but the last. If it
    /// breaks, the sequence stays where it is, without logits, and may go on from there.
    ///
    /// # Errors
    /// As [`Sequence::prefill`].
    pub fn prefill_with(
        &mut self,
        model: &Model,
        cx: &Cx,
        tokens: &[TokenId],
        chunk: usize,
        on_chunk: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.check(model, tokens)?;
        let chunk = chunk.max(1);
        let mut done = 0;
        for part in tokens.chunks(chunk) {
            done += part.len();
            let is_last = done == tokens.len();
            let logits = if is_last { LogitRows::Last } else { LogitRows::None };
            self.give_back_logits();
            let mut segments = [Segment { tokens: part, state: &mut self.state, logits }];
            let rows = model.forward(cx, &mut segments)?;
            self.tokens.extend_from_slice(part);
            if is_last {
                self.logits = Some(Logits::of_only_row(cx, rows, self.logits.take()));
            } else {
                self.logits = None;
                if on_chunk(done).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As [`Sequence::prefill`].
    pub fn decode(&mut self, model: &Model, cx: &Cx, token: TokenId) -> Result<()> {
        self.prefill(model, cx, &[token], 1)
    }

    /// Logits of the last token, (vocabulary); `None` for the empty sequence and after an interrupted prefill.
    pub fn logits(&self) -> Option<&[f32]> {
        self.logits.as_ref().map(Logits::as_slice)
    }

    /// The same, where they are.
    pub fn placed_logits(&self) -> Option<&Logits> {
        self.logits.as_ref()
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The tokens so far; the state is given up.
    pub fn into_tokens(self) -> Vec<TokenId> {
        self.tokens
    }

    /// Number of tokens so far.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// The model's state after the tokens.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Bytes of the state, shared pages counted in full.
    pub fn bytes(&self) -> usize {
        self.state.bytes()
    }

    /// An independent copy.
    pub fn fork(&self) -> Sequence {
        self.clone()
    }

    /// Remembers this point and ends the sequence, which costs nothing.
    pub fn into_kept(self) -> Kept {
        Kept(self)
    }

    /// Remembers this point.
    pub fn keep(&self) -> Kept {
        Kept(self.clone())
    }

    /// Goes back to a kept point of this path.
    ///
    /// # Errors
    /// [`Error::NotOnPath`] if the kept tokens do not begin this sequence; it has not changed then.
    pub fn rollback(&mut self, kept: &Kept) -> Result<()> {
        if self.fingerprint != kept.0.fingerprint || !self.tokens.starts_with(kept.tokens()) {
            return Err(Error::NotOnPath { kept: kept.position(), position: self.position() });
        }
        *self = kept.0.clone();
        Ok(())
    }

    /// Given back before the forward, the memory of the last logits on a device is that of the new ones, and a step of
    /// decoding writes to the same address as the one before.
    fn give_back_logits(&mut self) {
        drop(self.logits.take_if(|logits| logits.is_on_device()));
    }

    /// Whether the model made this sequence.
    pub(crate) fn check_model(&self, model: &Model) -> Result<()> {
        if self.fingerprint == model.fingerprint() { Ok(()) } else { Err(Error::WrongModel) }
    }

    /// Refuses tokens before the first chunk that the forward would refuse in a later one.
    fn check(&self, model: &Model, tokens: &[TokenId]) -> Result<()> {
        self.check_model(model)?;
        let vocab_size = model.config().vocab_size;
        match tokens.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(tangelo_model::Error::Token { token, vocab_size }.into()),
            None => Ok(()),
        }
    }
}

impl Kept {
    /// The tokens up to this point.
    pub fn tokens(&self) -> &[TokenId] {
        self.0.tokens()
    }

    /// Number of tokens up to this point.
    pub fn position(&self) -> usize {
        self.0.position()
    }

    /// Bytes of the state: those of the recurrent parts, which no other state shares, and those of the caches, whose
    /// pages it shares with the states of its path.
    pub fn bytes(&self) -> (usize, usize) {
        let cache = |layer: &LayerState| match layer {
            LayerState::Attention(cache) => cache.bytes(),
            LayerState::Mamba(_) | LayerState::Stateless => 0,
        };
        let caches = self.0.state.layers().iter().map(cache).sum();
        (self.0.bytes() - caches, caches)
    }

    /// Bytes that the caches take per token, rounded up to a page.
    pub(crate) fn cache_bytes_per_token(&self) -> usize {
        self.bytes().1.checked_div(self.position()).unwrap_or(0)
    }

    /// The model's state at this point.
    pub fn state(&self) -> &State {
        self.0.state()
    }

    /// Logits of the last token, if they were kept.
    pub fn placed_logits(&self) -> Option<&Logits> {
        self.0.placed_logits()
    }

    /// The sequence up to this point.
    pub fn as_sequence(&self) -> &Sequence {
        &self.0
    }

    /// This point, in the memory of the host.
    ///
    /// # Errors
    /// If its parts are not those of the model.
    pub fn on_host(&self, model: &Model) -> Result<Kept> {
        let mut parts: HashMap<String, Elements> =
            self.state().tensors(model.config()).into_iter().map(|part| (part.name, part.data)).collect();
        let take = |name: &str| parts.remove(name);
        let state = State::from_tensors(model.config(), model.kv_type(), self.position(), take)?;
        let logits = self.0.logits().map(<[f32]>::to_vec);
        Ok(Kept(Sequence::from_parts(model, self.tokens().to_vec(), state, logits)))
    }

    /// A sequence that continues from this point.
    pub fn sequence(&self) -> Sequence {
        self.0.clone()
    }
}
