//! Personas on disk: `NAME.toml`, and beside it `NAME.state`, if it has been built.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tangelo_chat::Persona;
use tangelo_core::limits::{CONFIG_BYTES_MAX, PERSONA_BYTES_MAX};
use tangelo_serve::personas::Source;

use crate::model;

/// Reads a persona. A file of tools that it names is looked for beside it.
///
/// # Errors
/// If a file cannot be read or is not what it should be.
pub fn read(path: &Path) -> Result<Persona> {
    let text = model::read_text(path, PERSONA_BYTES_MAX as u64)?;
    let tools = |tools: &Path| {
        let tools = path.parent().unwrap_or(Path::new("")).join(tools);
        let bytes = model::read(&tools, CONFIG_BYTES_MAX).map_err(|error| format!("{error:#}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{} is not JSON: {error}", tools.display()))
    };
    Persona::parse(&text, tools).with_context(|| path.display().to_string())
}

/// Where the state of a persona is.
pub fn state_path(persona: &Path) -> PathBuf {
    persona.with_extension("state")
}

/// The personas of a folder, with the states that they have.
///
/// # Errors
/// If the folder or one of its `.toml` files cannot be read.
pub fn read_folder(folder: &Path) -> Result<Vec<Source>> {
    let failed = || format!("cannot read the folder {}", folder.display());
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let state = Some(state_path(&path)).filter(|state| state.is_file());
            sources.push(Source { persona: read(&path)?, state });
        }
    }
    Ok(sources)
}
