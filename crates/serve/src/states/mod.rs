//! `/v1/states`: states with names, which stay until they are deleted and survive the program.
//!
//! The [tree](tangelo_engine::StateTree) keeps what it thinks worth keeping; a named state is kept because somebody said
//! so. It is a file ([`store`]) together with what its tokens came from. To begin with one, its state is put into the
//! tree, unless it is there, and found by its tokens like any other.

mod routes;
pub mod store;
mod transfer;

pub use routes::{prompt_of, routes};
pub use store::{Store, StoreError};

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use tangelo_chat::Conversation;
use tangelo_core::TokenId;
use tangelo_engine::scheduler::{Job, Work};
use tangelo_engine::state_file::{self, Restored};
use tangelo_engine::{Ended, Kept, Owner, Reason};
use tokio::sync::oneshot;

use self::store::{Entry, New, Summary};
use crate::app::{App, blocking, now_unix_s};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::Request;

/// What a new state is made of.
#[derive(Debug)]
struct Origin {
    tokens: Vec<TokenId>,
    cuts: Vec<usize>,
    conversation: Option<Conversation>,
    /// `None` for plain tokens.
    template: Option<String>,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let message = error.to_string();
        match error {
            StoreError::Name { .. } => ApiError::invalid(Some("name".to_owned()), message),
            StoreError::Unknown { .. } => ApiError::not_found(message),
            StoreError::Taken { .. } | StoreError::TooMany | StoreError::NoRoom { .. } => {
                ApiError::with_status(StatusCode::CONFLICT, message)
            }
            // Where the server keeps its files is nobody's business.
            StoreError::Io { action, cause, .. } => {
                ApiError::internal(format!("a file of the server cannot be {action}: {cause}"))
            }
        }
    }
}

impl App {
    /// The named states.
    ///
    /// # Errors
    /// The server has no folder for them.
    fn require_states(&self) -> Result<&Arc<Store>, ApiError> {
        self.states().ok_or_else(|| {
            let message = "this server keeps no named states: start it with --state-dir FOLDER";
            ApiError::with_status(StatusCode::CONFLICT, message)
        })
    }

    /// Does something with the store where it may wait for the disk.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.require_states()?.clone();
        Ok(blocking(move || work(&store)).await??)
    }

    /// What a state of the prompt of a request is made of. A conversation is left where any message can follow.
    async fn ingredients(&self, caller: &Caller, request: Request) -> Result<Origin, ApiError> {
        let prompt = self.prompt(caller, request, false).await?;
        let conversation = prompt.turn.map(|turn| turn.conversation);
        let template = conversation.as_ref().and_then(|_| self.text().template_identity());
        Ok(Origin { tokens: prompt.ids, cuts: prompt.cuts, conversation, template })
    }

    /// Makes sure that the tree has a named state, and says what is known of it.
    ///
    /// # Errors
    /// There is no such state, or its file is not what it should be.
    pub async fn begin_from(&self, owner: Owner, name: &str) -> Result<Entry, ApiError> {
        let wanted = name.to_owned();
        let entry = self.with_store(move |store| store.get(owner, &wanted)).await?;
        let path = self.require_states()?.file(owner, &entry);
        match self.bring(owner, &path, &entry.tokens).await {
            Err(error) if error.status == StatusCode::BAD_REQUEST => {
                let message = format!("the state {name:?} cannot be used: {}", error.message);
                Err(ApiError::with_status(StatusCode::CONFLICT, message))
            }
            brought => brought.map(|()| entry),
        }
    }

    /// Makes sure that the tree has the state of these tokens, which a file holds.
    ///
    /// # Errors
    /// The file is not what it should be, or of other tokens.
    pub(crate) async fn bring(&self, owner: Owner, path: &Path, tokens: &[TokenId]) -> Result<(), ApiError> {
        let wanted = tokens.to_vec();
        if self.worker().call(move |scheduler| scheduler.tree().has(owner, &wanted)).await? {
            return Ok(());
        }
        let restored = self.restore(path).await?;
        if restored.sequence.tokens() != tokens {
            return Err(ApiError::invalid(None, "its file holds other tokens than it should: make it again"));
        }
        let kept = restored.sequence.into_kept();
        self.worker().call(move |scheduler| scheduler.tree().insert(owner, kept, Reason::Cut)).await
    }

    /// Reads a state file and checks all of it.
    async fn restore(&self, path: &Path) -> Result<Restored, ApiError> {
        let (model, path) = (self.weights().clone(), path.to_path_buf());
        Ok(blocking(move || state_file::restore(&path, &model)).await??)
    }

    /// Computes a state, unless it is there, and gives it a name.
    async fn keep_as(&self, owner: Owner, name: &str, origin: Origin) -> Result<Summary, ApiError> {
        let wanted = name.to_owned();
        self.with_store(move |store| store.check_new(owner, &wanted)).await?;
        let Origin { tokens, cuts, conversation, template } = origin;
        let kept = self.compute(owner, tokens.clone(), cuts).await?;
        let (model, store, name) = (self.weights().clone(), self.require_states()?.clone(), name.to_owned());
        let created_unix_s = now_unix_s();
        blocking(move || {
            let file = store.new_file(owner)?;
            state_file::save(kept.as_sequence(), &model, template.as_deref(), file.path())?;
            let new = New { file, created_unix_s, parent: None, template, conversation, tokens };
            Ok(store.add(owner, &name, new, false)?)
        })
        .await?
    }

    /// The state after a prompt, in the memory of the host.
    async fn compute(&self, owner: Owner, prompt: Vec<TokenId>, cuts: Vec<usize>) -> Result<Kept, ApiError> {
        let (done, computed) = oneshot::channel();
        let model = self.weights().clone();
        let done = Box::new(move |result: Result<Kept, Ended>| {
            let on_host = result.map(|kept| match kept.state().is_on_device() {
                // A device belongs to the thread that computes, which is this one.
                true => kept.on_host(&model),
                false => Ok(kept),
            });
            // Whoever asked may have left meanwhile.
            let _ = done.send(on_host);
        });
        let work = Work::Warm { is_urgent: true, done };
        self.worker().submit(Job { owner, prompt, cuts, work }).await?;
        match computed.await {
            Ok(Ok(kept)) => Ok(kept?),
            Ok(Err(Ended::Failed(error))) => Err(error.into()),
            Ok(Err(_)) | Err(_) => {
                let message = "the server is shutting down";
                Err(ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, message))
            }
        }
    }
}
