//! The model that ships with the program, and the persona that it plays unless another one is asked for.
//!
//! `recipes/pocket` makes it; `models/README.md` says what it can do and what not.

use std::path::Path;

use anyhow::{Context as _, Result};
use tangelo_chat::Persona;
use tangelo_formats::{Bytes, Checkpoint};

/// What it is called where a model is named.
pub const NAME: &str = "tangelo-pocket";

static GGUF: &[u8] = include_bytes!("../../../models/tangelo-pocket.gguf");
static SHOPKEEPER: &str = include_str!("../../../models/shopkeeper.toml");

/// Whether a MODEL argument names it; a file or folder of the same name comes first.
pub fn is_meant_by(model: &str) -> bool {
    model == NAME && !Path::new(model).exists()
}

/// Opens it.
///
/// # Errors
/// If the program was built with another file in its place.
pub fn open() -> Result<Checkpoint> {
    Ok(Checkpoint::from_gguf(&Bytes::from_static(GGUF), NAME)?)
}

/// The keeper of a shop.
///
/// # Errors
/// As [`open`].
pub fn shopkeeper() -> Result<Persona> {
    let no_file = |_: &Path| Err("it has no file of tools".to_owned());
    Persona::parse(SHOPKEEPER, no_file).context("the persona of the program")
}
