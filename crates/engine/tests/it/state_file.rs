//! `.state` files: what other programs see in one, and every way in which one can be wrong.

use std::path::{Path, PathBuf};

use crate::common::{bits, cx, load, prefilled, prompt};
use safetensors::SafeTensors;
use sha2::{Digest as _, Sha256};
use tangelo_engine::state_file::{self, Problem};
use tangelo_engine::{Error, Sequence};
use tangelo_model::Model;
use tangelo_ops::attention::KvType;

/// A folder that goes away with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tangelo-state-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("a.state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn saved(model: &Model, folder: &Folder, len: usize) -> (Sequence, Vec<u8>) {
    let sequence = prefilled(model, &cx(), &prompt("tiny", 50)[..len]);
    state_file::save(&sequence, model, None, &folder.file()).unwrap();
    (sequence, std::fs::read(folder.file()).unwrap())
}

fn problem(path: &Path, model: &Model) -> Problem {
    match state_file::restore(path, model) {
        Err(Error::StateFile { problem, .. }) => problem,
        other => panic!("expected a problem, got {other:?}"),
    }
}

/// The file with another header; lengths are kept right.
fn with_header(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(std::str::from_utf8(&bytes[8..8 + len]).unwrap());
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + len..]].concat()
}

#[test]
fn what_the_header_says_is_hashed_too() {
    let folder = Folder::new("header");
    let model = load("tiny");
    let (sequence, _) = saved(&model, &folder, 20);
    state_file::save(&sequence, &model, Some("a template"), &folder.file()).unwrap();
    let bytes = std::fs::read(folder.file()).unwrap();
    assert_eq!(state_file::restore(&folder.file(), &model).unwrap().template.as_deref(), Some("a template"));
    let forged = with_header(&bytes, |header| header.replace("a template", "b template"));
    std::fs::write(folder.file(), forged).unwrap();
    assert!(matches!(problem(&folder.file(), &model), Problem::Hash));
}

#[test]
fn any_reader_of_safetensors_can_look_inside() {
    let folder = Folder::new("inside");
    let model = load("tiny");
    let (sequence, bytes) = saved(&model, &folder, 50);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["version"].as_str()), ("tangelo-state", "3"));
    assert_eq!((metadata["position"].as_str(), metadata["model"].len()), ("50", 64));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    let words: Vec<u32> =
        logits.data().chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
    assert_eq!(words, bits(sequence.logits().unwrap()));
    assert_eq!(tensors.tensor("layers.3.k").unwrap().shape(), [50, 2, 24]);
    assert_eq!(tensors.tensor("layers.0.ssm").unwrap().shape(), [24, 8, 16]);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn the_wrong_file_is_named_for_what_it_is() {
    let folder = Folder::new("wrong");
    let (model, other) = (load("tiny"), load("moe"));
    let (_, bytes) = saved(&model, &folder, 9);
    let path = folder.file();
    assert!(matches!(problem(&path, &other), Problem::OtherModel { .. }));

    let newer = with_header(&bytes, |h| h.replace(r#""version":"3""#, r#""version":"4""#));
    std::fs::write(&path, newer).unwrap();
    assert!(matches!(problem(&path, &model), Problem::NewerVersion { found: 4 }));

    let elsewhere = folder.0.join("none.state");
    let error = state_file::restore(&elsewhere, &model).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "read", .. }), "{error}");
    let weights = crate::common::fixture("tiny/model.safetensors");
    for not_a_state in [weights, crate::common::fixture("tiny/config.json")] {
        let problem = problem(&not_a_state, &model);
        assert!(matches!(problem, Problem::NotAState { .. }), "{problem}");
    }
    let wrong_model = load("tiny/f32");
    let (sequence, _) = saved(&model, &folder, 9);
    let error = state_file::save(&sequence, &wrong_model, None, &path).unwrap_err();
    assert!(matches!(error, Error::WrongModel));
}

#[test]
fn a_state_goes_on_only_as_it_began() {
    let folder = Folder::new("kv");
    let model = load("tiny");
    let (_, f32_file) = saved(&model, &folder, 50);
    // Files of versions 1 and 2 hash the data alone.
    let header_end = 8 + u64::from_le_bytes(f32_file[..8].try_into().unwrap()) as usize;
    let of_data: String =
        Sha256::digest(&f32_file[header_end..]).iter().map(|b| format!("{b:02x}")).collect();
    let (_, metadata) = SafeTensors::read_metadata(&f32_file).unwrap();
    let of_all = metadata.metadata().as_ref().unwrap()["sha256"].clone();
    assert_ne!(of_all, of_data);
    let old = |version: &str, header: &str| {
        let header = header.replace(r#""version":"3""#, &format!(r#""version":"{version}""#));
        header.replace(&of_all, &of_data)
    };
    std::fs::write(folder.file(), with_header(&f32_file, |header| old("2", header))).unwrap();
    assert_eq!(state_file::restore(&folder.file(), &model).unwrap().sequence.position(), 50);
    std::fs::write(folder.file(), with_header(&f32_file, |header| old("3", header))).unwrap();
    assert!(matches!(problem(&folder.file(), &model), Problem::Hash));
    let without_kv = |header: &str| {
        let header = old("1", header);
        header.replace(r#","kv":"f32""#, "").replace(r#""kv":"f32","#, "")
    };
    let first_version = with_header(&f32_file, without_kv);
    assert!(first_version.len() < f32_file.len());
    std::fs::write(folder.file(), first_version).unwrap();
    let restored = state_file::restore(&folder.file(), &model).unwrap();
    assert_eq!(restored.sequence.position(), 50, "version 1 had f32 only");

    let model = model.with_kv_type(KvType::F16);
    let found = problem(&folder.file(), &model);
    let (f32_kv, f16_kv) = (KvType::F32, KvType::F16);
    assert!(matches!(found, Problem::OtherKv { found, expected } if (found, expected) == (f32_kv, f16_kv)));
    let (sequence, f16_file) = saved(&model, &folder, 50);
    assert_eq!(f32_file.len() - f16_file.len(), sequence.position() * 384, "two bytes less for each element");
    let tensors = SafeTensors::deserialize(&f16_file).unwrap();
    assert_eq!(tensors.tensor("layers.3.k").unwrap().dtype(), safetensors::Dtype::F16);
    let found = problem(&folder.file(), &model.with_kv_type(KvType::F32)).to_string();
    assert!(found.contains("keeps keys and values as f16") && found.contains("--kv f16"), "{found}");
}

#[test]
fn every_truncation_is_an_error() {
    let folder = Folder::new("truncated");
    let model = load("tiny");
    let (_, bytes) = saved(&model, &folder, 3);
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let early = (0..header_end + 64).step_by(7);
    for len in early.chain((header_end..bytes.len()).step_by(997)).chain([bytes.len() - 1]) {
        std::fs::write(folder.file(), &bytes[..len]).unwrap();
        let problem = problem(&folder.file(), &model);
        assert!(matches!(problem, Problem::NotAState { .. } | Problem::Size { .. }), "{len}: {problem}");
    }
    std::fs::write(folder.file(), [&bytes[..], &[0]].concat()).unwrap();
    assert!(matches!(problem(&folder.file(), &model), Problem::Size { .. }));
}

#[test]
fn every_flipped_bit_is_an_error() {
    let folder = Folder::new("flipped");
    let model = load("tiny");
    let (_, bytes) = saved(&model, &folder, 3);
    let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let in_header = (0..header_end).step_by(3);
    for at in in_header.chain((header_end..bytes.len()).step_by(1499)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(folder.file(), &changed).unwrap();
        match state_file::restore(&folder.file(), &model) {
            Err(Error::StateFile { .. }) => {}
            // Spaces that pad the header are the only bytes without a meaning.
            Ok(_) if bytes[at] == b' ' && changed[at].is_ascii_whitespace() => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn hostile_headers_are_refused_before_memory_is_taken() {
    let folder = Folder::new("hostile");
    let model = load("tiny");
    let (_, bytes) = saved(&model, &folder, 9);
    let check = |name: &str, bytes: &[u8], expected: &str| {
        std::fs::write(folder.file(), bytes).unwrap();
        let found = problem(&folder.file(), &model).to_string();
        assert!(found.contains(expected), "{name}: {found}");
    };
    let replaced = |from: &str, to: &str| {
        with_header(&bytes, |header| {
            assert!(header.contains(from), "{from} is not in {header}");
            header.replacen(from, to, 1)
        })
    };
    check("huge header", &[&[0xff; 8], &bytes[8..]].concat(), "its header would have");
    check("position", &replaced(r#""position":"9""#, r#""position":"99999999999""#), "the position is");
    check("negative", &replaced(r#""position":"9""#, r#""position":"-1""#), "the position is `-1`");
    check("other position", &replaced(r#""position":"9""#, r#""position":"8""#), "instead of");
    check("version", &replaced(r#""version":"3""#, r#""version":"x""#), "the version is `x`");
    check("kv", &replaced(r#""kv":"f32""#, r#""kv":"f8""#), "keys and values are `f8`");
    check("kv", &replaced(r#""kv":"f32""#, r#""kv":"f16""#), "run with --kv f16");
    check("renamed", &replaced("layers.0.conv", "layers.1.conv"), "no tensor layers.0.conv");
    check("dtype", &replaced(r#""dtype":"U32""#, r#""dtype":"F32""#), "tokens is F32");
    check("shape", &replaced("[24,8,16]", "[24,16,8]"), "layers.0.ssm is F32 [24, 16, 8] instead of");
    check("absurd", &replaced("[24,8,16]", "[9223372036854775807,8,16]"), "not a state file");
    check("hash", &replaced(r#""sha256":""#, r#""sha256":"0"#), "SHA-256");

    // A token outside the vocabulary, with the right hash: only whoever made the file can be to blame.
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut data = bytes[8 + len..].to_vec();
    data[..4].copy_from_slice(&512u32.to_le_bytes());
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let mut hasher = Sha256::new();
    for key in ["model", "position", "kv", "template"] {
        let value = metadata.get(key).map_or("", String::as_str);
        hasher.update((value.len() as u64).to_le_bytes());
        hasher.update(value);
    }
    hasher.update(&data);
    let new: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let header = with_header(&bytes, |header| header.replace(&metadata["sha256"], &new));
    check("token", &[&header[..8 + len], &data].concat(), "token 512 is outside the vocabulary of 512");
}
