//! Finding the files of a model and building the table of its tensors.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use tangelo_core::limits::{CONFIG_BYTES_MAX, TENSORS_MAX};

use super::safetensors_names::{canonical, expert_stack};
use super::{Checkpoint, Entry, Format, companions};
use crate::bytes::Bytes;
use crate::config::Config;
use crate::error::{Error, Result, shown};
use crate::generation::GenerationConfig;
use crate::gguf::{self, Gguf};
use crate::{json, safetensors};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::Io {
        action: "open",
        path: path.to_path_buf(),
        cause,
    })?;
    if metadata.is_dir() {
        return open_folder(path);
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if extension.eq_ignore_ascii_case("gguf") || starts_with_gguf_magic(path)? {
        return open_gguf(path, folder);
    }
    if extension.eq_ignore_ascii_case("safetensors") {
        return open_safetensors(folder, vec![path.to_path_buf()]);
    }
    let problem =
        "it is neither a GGUF nor a safetensors file; give one of these or a folder with config.json";
    Err(Error::NotAModel { path: path.to_path_buf(), problem: problem.into() })
}

/// Content-addressed caches keep GGUF files under names without an extension.
fn starts_with_gguf_magic(path: &Path) -> Result<bool> {
    use std::io::Read;
    let io = |action| move |cause| Error::Io { action, path: path.to_path_buf(), cause };
    let file = std::fs::File::open(path).map_err(io("open"))?;
    let mut magic = Vec::new();
    file.take(gguf::MAGIC.len() as u64).read_to_end(&mut magic).map_err(io("read"))?;
    Ok(magic == gguf::MAGIC)
}

fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let single = folder.join(SINGLE);
    if single.is_file() {
        return open_safetensors(folder, vec![single]);
    }
    let index = folder.join(INDEX);
    if index.is_file() {
        return open_safetensors(folder, shards(folder, &index)?);
    }
    let not_a_model = |problem: String| Error::NotAModel { path: folder.to_path_buf(), problem };
    let mut ggufs = Vec::new();
    let io = |cause| Error::Io { action: "read", path: folder.to_path_buf(), cause };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            ggufs.push(path);
        }
    }
    ggufs.sort();
    match ggufs.as_slice() {
        [only] => open_gguf(only, folder),
        [] => Err(not_a_model(format!("the folder has no {SINGLE}, {INDEX} or .gguf file"))),
        several => {
            let names: Vec<_> =
                several.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(not_a_model(format!("the folder has several GGUF files; name one of {}", names.join(", "))))
        }
    }
}

/// The shards that an index names, each inside the folder, in order of name.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let value = json::read_file("the index", index)?.unwrap_or_default();
    let bad = |problem: String| Error::config("weight_map", problem).in_file(index);
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(bad("should be an object from tensor names to file names".into()));
    };
    let mut names = std::collections::BTreeSet::new();
    for file in map.values() {
        let Some(name) = file.as_str() else {
            return Err(bad(format!("should hold file names, found {}", shown(&file.to_string()))));
        };
        if !names.contains(name) {
            let mut components = Path::new(name).components();
            // A plain file name: anything else could lead out of the folder.
            let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
            if !plain || name.contains(['/', '\\', '\0']) {
                return Err(bad(format!("names `{}`, which is not a file of the same folder", shown(name))));
            }
            names.insert(name);
        }
    }
    if names.is_empty() {
        return Err(bad("names no files".into()));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn open_safetensors(folder: &Path, files: Vec<PathBuf>) -> Result<Checkpoint> {
    let config_path = folder.join("config.json");
    let Some(text) = json::read_text(&config_path, CONFIG_BYTES_MAX)? else {
        let problem = "there is no config.json beside the weights, so their architecture is unknown";
        return Err(Error::NotAModel { path: folder.to_path_buf(), problem: problem.into() });
    };
    let config = Config::from_json(&text).map_err(|e| e.in_file(&config_path))?;
    let mut table = Table::default();
    for path in &files {
        add_safetensors(&mut table, &config, &Bytes::map_file(path)?).map_err(|e| e.in_file(path))?;
    }
    let generation_path = folder.join("generation_config.json");
    let generation = match json::read_file("generation_config.json", &generation_path)? {
        Some(value) => GenerationConfig::from_value(&value).map_err(|e| e.in_file(&generation_path))?,
        None => GenerationConfig::default(),
    };
    let mut stop_token_ids = companions::tokenizer_eos(folder)?;
    stop_token_ids.extend(&config.eos_token_ids);
    stop_token_ids.extend(&generation.eos_token_ids);
    finish(Parts {
        config,
        generation,
        format: Format::Safetensors,
        files,
        folder: Some(folder),
        gguf: None,
        table,
        stop_token_ids,
    })
}

fn open_gguf(path: &Path, folder: &Path) -> Result<Checkpoint> {
    from_gguf(&Bytes::map_file(path)?, path, Some(folder))
}

/// A GGUF file in memory or, if it lies in a folder, on disk; `path` is its name in messages.
pub(super) fn from_gguf(bytes: &Bytes, path: &Path, folder: Option<&Path>) -> Result<Checkpoint> {
    let at = |e: Error| e.in_file(path);
    let gguf = gguf::parse(bytes).map_err(at)?;
    let config = gguf::arch::config_from_gguf(&gguf).map_err(at)?;
    let mut table = Table::default();
    add_gguf(&mut table, &gguf, &config, bytes).map_err(at)?;
    let generation = companions::gguf_generation(&gguf.metadata).map_err(at)?;
    let mut stop_token_ids = companions::gguf_stop_ids(&gguf.metadata).map_err(at)?;
    stop_token_ids.extend(&config.eos_token_ids);
    let format = Format::Gguf { version: gguf.version };
    let files = folder.map(|_| path.to_path_buf()).into_iter().collect();
    let gguf = Some(gguf);
    finish(Parts { config, generation, format, files, folder, gguf, table, stop_token_ids })
}

struct Parts<'a> {
    config: Config,
    generation: GenerationConfig,
    format: Format,
    files: Vec<PathBuf>,
    folder: Option<&'a Path>,
    gguf: Option<Gguf>,
    table: Table,
    stop_token_ids: Vec<u32>,
}

fn finish(mut parts: Parts) -> Result<Checkpoint> {
    parts.stop_token_ids.sort_unstable();
    parts.stop_token_ids.dedup();
    let checkpoint = Checkpoint {
        config: parts.config,
        generation: parts.generation,
        format: parts.format,
        files: parts.files,
        folder: parts.folder.map(Path::to_path_buf),
        gguf: parts.gguf,
        entries: parts.table.entries,
        index: parts.table.index,
        stop_token_ids: parts.stop_token_ids,
        adapter: None,
    };
    checkpoint.check_tensors()?;
    Ok(checkpoint)
}

/// Tensors by name, each name once.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Table {
    fn add(&mut self, entry: Entry) -> Result<()> {
        if self.entries.len() as u64 >= TENSORS_MAX {
            let what = "the number of tensors".to_string();
            return Err(Error::TooLarge { what, found: TENSORS_MAX + 1, limit: TENSORS_MAX });
        }
        if self.index.insert(entry.name.clone(), self.entries.len()).is_some() {
            let problem = format!("tensor `{}` is in the checkpoint twice", shown(&entry.name));
            return Err(Error::config("tensors", problem));
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn add_safetensors(table: &mut Table, config: &Config, file: &Bytes) -> Result<()> {
    for tensor in safetensors::parse_header(file, file.len())?.tensors {
        let name = canonical(&tensor.name);
        let bytes = slice(file, &name, tensor.range)?;
        let entry =
            Entry { name, dtype: tensor.dtype, dtype_name: tensor.dtype_name, shape: tensor.shape, bytes };
        match (expert_stack(&entry.name), entry.shape.as_slice()) {
            (Some((layer, projection)), &[experts, rows, columns]) if experts > 0 => {
                check_stack(config, &entry.name, experts)?;
                let size = entry.bytes.len() / experts;
                for e in 0..experts {
                    let name = format!("{layer}.experts.{e}.{projection}.weight");
                    let bytes = slice(&entry.bytes, &name, e * size..(e + 1) * size)?;
                    table.add(Entry { name, shape: vec![rows, columns], bytes, ..entry.clone() })?;
                }
            }
            _ => table.add(entry)?,
        }
    }
    Ok(())
}

fn add_gguf(table: &mut Table, gguf: &Gguf, config: &Config, file: &Bytes) -> Result<()> {
    for tensor in &gguf.tensors {
        let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let layer = layer.and_then(|(i, _)| i.parse::<usize>().ok());
        if layer.is_some_and(|i| i >= config.blocks.len()) {
            continue; // Heads for multi-token prediction follow the last layer and are not used here.
        }
        let Some(mapped) = gguf::names::to_checkpoint(tensor)? else {
            if layer.is_none() {
                continue;
            }
            let problem = format!(
                "`{}` has no place in this architecture; its effect would be lost",
                shown(&tensor.name)
            );
            return Err(Error::config("tensors", problem));
        };
        if let [_, _, ..] = mapped.as_slice() {
            check_stack(config, &tensor.name, mapped.len())?;
        }
        for m in mapped {
            let bytes = slice(file, &m.name, m.range)?;
            let dtype_name = tensor.dtype.name().to_string();
            table.add(Entry {
                name: m.name,
                dtype: Some(tensor.dtype),
                dtype_name,
                shape: m.shape,
                bytes,
            })?;
        }
    }
    Ok(())
}

/// A stack must have a slice for every expert of the configuration and no more.
fn check_stack(config: &Config, name: &str, experts: usize) -> Result<()> {
    match &config.moe {
        Some(moe) if moe.num_experts == experts => Ok(()),
        moe => {
            let expected = moe.as_ref().map_or(0, |moe| moe.num_experts);
            let problem = format!("is {expected}, but tensor `{}` holds {experts} experts", shown(name));
            Err(Error::config("n_routed_experts", problem))
        }
    }
}

/// The parsers have checked every range; this repeats it without panicking.
fn slice(file: &Bytes, name: &str, range: std::ops::Range<usize>) -> Result<Bytes> {
    let problem = || format!("tensor `{}` has bytes {range:?} of {}", shown(name), file.len());
    file.slice(range.clone()).ok_or_else(|| Error::Safetensors { problem: problem() })
}
