//! Conversations on disk: the messages as JSON, and beside them the model's state after them.
//!
//! The state is that of the tokens which the next prompt will begin with whatever is asked, so that a loaded conversation
//! goes on without reading anything again, with the same bits. It is only a shortcut: where it is missing, damaged, or
//! from another model or template, the messages are read again and give the same answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::HumanBytes;
use serde_json::{Value, json};
use tangelo_chat::{PromptTokens, beginning};
use tangelo_core::limits::RENDERED_BYTES_MAX;
use tangelo_engine::{Reason, state_file};

use super::dialogue::{Dialogue, OWNER};
use crate::{model, output};

/// Version of the JSON written, and the newest that is read.
const VERSION: u64 = 1;
/// Ending of the state's name.
const STATE: &str = "state";

impl Dialogue<'_> {
    /// Writes the conversation to `path` and the state beside it, and says so.
    ///
    /// # Errors
    /// If a file cannot be written; the files that were there before are still whole then.
    pub fn save(&mut self, path: &Path) -> Result<String> {
        let state = state_path(path)?;
        let mut document = json!({ "format": "tangelo-conversation", "version": VERSION });
        document["thinking"] = self.thinking.into();
        let conversation = serde_json::to_value(&self.conversation)?;
        for (key, value) in conversation.as_object().into_iter().flatten() {
            document[key] = value.clone();
        }
        output::write(path, serde_json::to_string_pretty(&document)?.as_bytes())?;
        let messages = self.num_messages();
        // A template may refuse the question that is tried here; the messages alone are enough.
        let Ok(prompt) = self.settled() else { return Ok(format!("saved {messages} messages")) };
        self.interrupt.store(false, Ordering::Relaxed);
        let Some(sequence) = self.prefill(&prompt)? else { bail!("stopped: the state was not saved") };
        state_file::save(&sequence, &self.session.model, Some(&self.template_identity), &state)?;
        self.states.insert(OWNER, sequence.keep(), Reason::Cut);
        let bytes = std::fs::metadata(&state).map_or(0, |file| file.len());
        Ok(format!(
            "saved {messages} messages, and the state of {} tokens ({})",
            prompt.ids.len(),
            HumanBytes(bytes)
        ))
    }

    /// Replaces the conversation by that of `path`, continues from the state beside it if it fits, and says so.
    ///
    /// # Errors
    /// If the file cannot be read or is something else; the conversation is as before then.
    pub fn load(&mut self, path: &Path) -> Result<String> {
        let shown = path.display();
        let bytes = model::read(path, RENDERED_BYTES_MAX as u64)?;
        let saved: Value = serde_json::from_slice(&bytes).with_context(|| format!("{shown} is not JSON"))?;
        let is_conversation = saved.get("messages").is_some_and(Value::is_array);
        ensure!(is_conversation, "{shown} is not a saved conversation: expected an object with `messages`");
        let version = saved.get("version").and_then(Value::as_u64).unwrap_or(VERSION);
        ensure!(
            version <= VERSION,
            "{shown} has version {version}, but this program reads up to {VERSION}: update the program"
        );
        let state = state_path(path)?;
        let thinking = saved.get("thinking").and_then(Value::as_bool);
        self.conversation = serde_json::from_value(saved).with_context(|| shown.to_string())?;
        self.thinking = thinking.or(self.thinking);
        let messages = self.num_messages();
        Ok(match self.load_state(&state) {
            Ok(tokens) => format!("loaded {messages} messages, and the state of {tokens} tokens"),
            Err(why) => format!("loaded {messages} messages; they will be read again, because {why:#}"),
        })
    }

    /// Continues from the state of a file if it is what the conversation begins with; how many tokens it is of.
    ///
    /// # Errors
    /// If it cannot be read or is of something else.
    pub fn load_state(&mut self, path: &Path) -> Result<usize> {
        ensure!(path.is_file(), "{} does not exist", path.display());
        let restored = state_file::restore(path, &self.session.model)?;
        let is_same = restored.template.as_deref() == Some(self.template_identity.as_str());
        ensure!(is_same, "{} was made with another chat template", path.display());
        let position = restored.sequence.position();
        let fits = self.settled()?.ids.starts_with(restored.sequence.tokens());
        ensure!(fits, "{} belongs to other messages", path.display());
        self.states.insert(OWNER, restored.sequence.keep(), Reason::Cut);
        Ok(position)
    }

    /// The tokens that the next prompt begins with, whatever is asked.
    fn settled(&self) -> Result<PromptTokens> {
        Ok(beginning(&self.renderer, self.tokenizer, &self.conversation, &self.render_options())?)
    }
}

/// `talk.json` has its state in `talk.state`.
fn state_path(path: &Path) -> Result<PathBuf> {
    if path.extension().is_some_and(|ending| ending == STATE) {
        bail!(
            "{} would be the name of the state: name the conversation, as in {}",
            path.display(),
            path.with_extension("json").display()
        );
    }
    Ok(path.with_extension(STATE))
}
