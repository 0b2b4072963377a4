//! Reading: everything is compared before memory is taken.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest as _, Sha256};
use tangelo_core::TokenId;
use tangelo_core::limits::{CONTEXT_TOKENS_MAX, STATE_HEADER_BYTES_MAX};
use tangelo_model::{Model, State};
use tangelo_ops::attention::{Elements, KvType};

use super::{CONVERTED_AT_ONCE, FORMAT, LENGTH_BYTES, Problem, Spec, VERSION, hash_metadata, hex, layout};
use crate::error::{Error, Result};
use crate::sequence::Sequence;

/// Digits of a fingerprint that a message shows.
const FINGERPRINT_SHOWN: usize = 12;

/// What a state file holds.
#[derive(Debug)]
pub struct Restored {
    /// The sequence, as it was when it was saved.
    pub sequence: Sequence,
    /// What the writer gave as template.
    pub template: Option<String>,
}

/// Reads a file written by [`super::save`].
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::StateFile`] with the [`Problem`] if it is not a state of this
/// model, or damaged.
pub fn restore(path: &Path, model: &Model) -> Result<Restored> {
    read(path, model).map_err(|failure| named(path, failure))
}

/// [`Error`] without the path.
enum Failure {
    Io(io::Error),
    Problem(Problem),
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Failure {
        Failure::Io(cause)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

/// The tokens of a file written by [`super::save`]. Whether the rest is sound is not looked at.
///
/// # Errors
/// As [`restore`].
pub(crate) fn read_tokens(path: &Path, model: &Model) -> Result<Vec<TokenId>> {
    let read = || {
        let mut opened = Opened::new(path, model)?;
        let tokens = opened.read_tokens(&mut Sha256::new())?;
        check_tokens(&tokens, model)?;
        Ok(tokens)
    };
    read().map_err(|failure| named(path, failure))
}

fn named(path: &Path, failure: Failure) -> Error {
    match failure {
        Failure::Io(cause) => Error::Io { path: path.to_path_buf(), action: "read", cause },
        Failure::Problem(problem) => Error::StateFile { path: path.to_path_buf(), problem },
    }
}

/// A file whose header is what it should be, at the beginning of its tensors.
struct Opened {
    input: BufReader<File>,
    metadata: HashMap<String, String>,
    position: usize,
    /// In the order of the file; the first one is that of the tokens.
    specs: Vec<Spec>,
}

impl Opened {
    fn new(path: &Path, model: &Model) -> Result<Opened, Failure> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut input = BufReader::new(file);
        let (header, header_bytes) = read_header(&mut input, file_bytes)?;
        let Some(metadata) = header.metadata() else {
            return Err(not_a_state("its header has no metadata").into());
        };
        let position = check_metadata(metadata, model)?;
        let specs = check_layout(&header, model, position)?;
        let data_bytes: u64 = specs.iter().filter_map(Spec::num_bytes).map(|n| n as u64).sum();
        let expected = LENGTH_BYTES.saturating_add(header_bytes).saturating_add(data_bytes);
        if expected != file_bytes {
            return Err(Problem::Size { expected, found: file_bytes }.into());
        }
        // The file really has the bytes of all tensors: from here on nothing larger than it is allocated.
        Ok(Opened { input, metadata: metadata.clone(), position, specs })
    }

    fn read_tokens(&mut self, hasher: &mut Sha256) -> Result<Vec<TokenId>, Failure> {
        Ok(read_words(&mut self.input, hasher, self.position, u32::from_le_bytes)?)
    }
}

fn read(path: &Path, model: &Model) -> Result<Restored, Failure> {
    let mut opened = Opened::new(path, model)?;
    let mut hasher = Sha256::new();
    if opened.metadata.get("version").is_none_or(|version| version != "1" && version != "2") {
        hash_metadata(&mut hasher, &opened.metadata);
    }
    let tokens = opened.read_tokens(&mut hasher)?;
    let Opened { mut input, metadata, position, specs } = opened;
    let mut parts = HashMap::with_capacity(specs.len());
    for spec in specs.into_iter().skip(1) {
        let len = spec.shape.iter().product();
        let data = if spec.dtype == Dtype::F16 {
            Elements::F16(read_words(&mut input, &mut hasher, len, u16::from_le_bytes)?)
        } else {
            Elements::F32(read_words(&mut input, &mut hasher, len, f32::from_le_bytes)?)
        };
        parts.insert(spec.name, data);
    }
    if metadata.get("sha256") != Some(&hex(&hasher.finalize())) {
        return Err(Problem::Hash.into());
    }
    check_tokens(&tokens, model)?;
    let logits = match parts.remove("logits") {
        Some(Elements::F32(logits)) => Some(logits),
        _ => None,
    };
    let state = State::from_tensors(model.config(), model.kv_type(), position, |name| parts.remove(name))
        .map_err(|error| damaged(error.to_string()))?;
    let sequence = Sequence::from_parts(model, tokens, state, logits);
    Ok(Restored { sequence, template: metadata.get("template").cloned() })
}

fn check_tokens(tokens: &[TokenId], model: &Model) -> Result<(), Problem> {
    let vocab_size = model.config().vocab_size;
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(token) => Err(damaged(format!("token {token} is outside the vocabulary of {vocab_size}"))),
        None => Ok(()),
    }
}

/// The header and its length in bytes.
fn read_header(input: &mut impl Read, file_bytes: u64) -> Result<(Metadata, u64), Failure> {
    let mut length = [0; LENGTH_BYTES as usize];
    if file_bytes < LENGTH_BYTES {
        return Err(not_a_state(format!("it has {file_bytes} bytes")).into());
    }
    input.read_exact(&mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > STATE_HEADER_BYTES_MAX {
        return Err(not_a_state(format!("its header would have {header_bytes} bytes")).into());
    }
    let expected = LENGTH_BYTES + header_bytes;
    if expected > file_bytes {
        return Err(Problem::Size { expected, found: file_bytes }.into());
    }
    let mut header = vec![0; header_bytes as usize];
    input.read_exact(&mut header)?;
    let header = serde_json::from_slice(&header)
        .map_err(|error| not_a_state(format!("its header is not that of a safetensors file: {error}")))?;
    Ok((header, header_bytes))
}

/// Format, version, model and type of keys and values, in this order, so that the most telling difference is the one
/// reported; then the position.
fn check_metadata(metadata: &HashMap<String, String>, model: &Model) -> Result<usize, Problem> {
    let get = |key: &str| metadata.get(key).map_or("", String::as_str);
    if get("format") != FORMAT {
        return Err(not_a_state(format!("its metadata does not say that its format is {FORMAT}")));
    }
    let version: u32 =
        get("version").parse().map_err(|_| damaged(format!("the version is `{}`", shown(get("version")))))?;
    if version == 0 {
        return Err(damaged("the version is `0`".to_string()));
    }
    if version > VERSION {
        return Err(Problem::NewerVersion { found: version });
    }
    let (found, expected) = (get("model"), hex(&model.fingerprint()));
    if found != expected {
        let short = |digits: &str| digits.chars().take(FINGERPRINT_SHOWN).collect();
        return Err(Problem::OtherModel { found: short(found), expected: short(&expected) });
    }
    // Version 1 had f32 only and did not say so; a later file that does not say is damaged.
    let kv = if version == 1 { KvType::F32.name() } else { get("kv") };
    let found = KvType::from_name(kv);
    let found = found.ok_or_else(|| damaged(format!("its keys and values are `{}`", shown(kv))))?;
    let expected = model.kv_type();
    if found != expected {
        return Err(Problem::OtherKv { found, expected });
    }
    match get("position").parse() {
        Ok(position) if position <= CONTEXT_TOKENS_MAX => Ok(position),
        _ => Err(damaged(format!("the position is `{}`", shown(get("position"))))),
    }
}

/// The tensors of the file, which must be those that model and position imply.
fn check_layout(header: &Metadata, model: &Model, position: usize) -> Result<Vec<Spec>, Problem> {
    let specs = layout(model, position, header.info("logits").is_some());
    let mut end = 0usize;
    for Spec { name, dtype, shape } in &specs {
        let info = header.info(name).ok_or_else(|| damaged(format!("it has no tensor {name}")))?;
        if info.dtype != *dtype || info.shape != *shape {
            let found = format!("{:?} {:?}", info.dtype, info.shape);
            return Err(damaged(format!("{name} is {found} instead of {dtype:?} {shape:?}")));
        }
        // The reader of headers has checked that sizes fit shapes and that the ranges lie end to end.
        if info.data_offsets.0 != end {
            return Err(damaged(format!("{name} is not in its place")));
        }
        end = info.data_offsets.1;
    }
    let found = header.offset_keys().len();
    if found != specs.len() {
        return Err(damaged(format!("it has {found} tensors instead of {}", specs.len())));
    }
    Ok(specs)
}

/// The next `len` words, which also go through the hash.
fn read_words<T, const BYTES: usize>(
    input: &mut impl Read,
    hasher: &mut Sha256,
    len: usize,
    from_bytes: impl Fn([u8; BYTES]) -> T,
) -> io::Result<Vec<T>> {
    let mut words = Vec::with_capacity(len);
    let mut bytes = vec![0; CONVERTED_AT_ONCE.min(len) * BYTES];
    while words.len() < len {
        let count = (len - words.len()).min(CONVERTED_AT_ONCE);
        let bytes = &mut bytes[..count * BYTES];
        input.read_exact(bytes)?;
        hasher.update(&*bytes);
        let (whole, _) = bytes.as_chunks::<BYTES>();
        words.extend(whole.iter().map(|word| from_bytes(*word)));
    }
    Ok(words)
}

fn not_a_state(reason: impl Into<String>) -> Problem {
    Problem::NotAState { reason: reason.into() }
}

fn damaged(what: impl Into<String>) -> Problem {
    Problem::Damaged { what: what.into() }
}

/// The beginning of a text from a file, fit for a message.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}
