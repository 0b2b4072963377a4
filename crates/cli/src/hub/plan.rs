//! Which files of a repository make a model that this program can run. Pure functions over lists of names.

use anyhow::{Result, bail};
use serde_json::Value;

/// Weights of a small model in one file.
pub const SINGLE_WEIGHTS: &str = "model.safetensors";
/// The list of shards of a large one.
const INDEX: &str = "model.safetensors.index.json";
/// What stands beside the weights and is taken if it exists. The first one must exist.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "hf_quant_config.json",
    "README.md",
    "LICENSE",
    "LICENSE.md",
];
/// The quantisation taken when there are several and none was named.
const PREFERRED: &str = "q4_k_m";
/// Most names shown in an error.
const SHOWN_MAX: usize = 12;

/// What to take.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// One GGUF file.
    Gguf {
        /// Its path.
        file: String,
        /// How many other GGUF files there are.
        others: usize,
    },
    /// A folder of safetensors with their [`companions`].
    Folder {
        /// The list of shards; `None` if the weights are one file.
        index: Option<String>,
    },
}

/// Chooses from the files of `repo`.
///
/// # Errors
/// A sentence with the choices if there are several, or with what was looked for if there are none.
pub fn choose(repo: &str, names: &[String]) -> Result<Plan> {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has(COMPANIONS[0]) && has(INDEX) {
        return Ok(Plan::Folder { index: Some(INDEX.into()) });
    }
    if has(COMPANIONS[0]) && has(SINGLE_WEIGHTS) {
        return Ok(Plan::Folder { index: None });
    }
    let ggufs: Vec<&String> = names.iter().filter(|n| n.to_ascii_lowercase().ends_with(".gguf")).collect();
    let preferred: Vec<&&String> =
        ggufs.iter().filter(|n| n.to_ascii_lowercase().contains(PREFERRED)).collect();
    match (ggufs.as_slice(), preferred.as_slice()) {
        ([], _) => bail!(
            "`{repo}` is not a model this program can run: it has neither a .gguf file nor config.json with {SINGLE_WEIGHTS} \
             or {INDEX}, but {}",
            describe(names)
        ),
        ([file], _) => Ok(Plan::Gguf { file: file.to_string(), others: 0 }),
        (all, [file]) => Ok(Plan::Gguf { file: file.to_string(), others: all.len() - 1 }),
        (all, _) => {
            let all: Vec<String> = all.iter().map(|n| n.to_string()).collect();
            bail!("`{repo}` has several GGUF files; choose one with `{repo}:FILE` from {}", describe(&all))
        }
    }
}

/// The files beside the weights that exist in `names`.
pub fn companions(names: &[String]) -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().filter(move |c| names.iter().any(|n| n == c))
}

/// Names of the shards in an index, each once.
///
/// # Errors
/// If the bytes are not an index.
pub fn shards(index: &[u8]) -> Result<Vec<String>> {
    let parsed: Value = serde_json::from_slice(index).unwrap_or_default();
    let Some(map) = parsed.get("weight_map").and_then(Value::as_object) else {
        bail!("{INDEX} is not an index of shards: it has no `weight_map`");
    };
    let mut shards: Vec<String> = map.values().filter_map(Value::as_str).map(str::to_string).collect();
    if shards.len() != map.len() || shards.is_empty() {
        bail!("{INDEX} is not an index of shards: its `weight_map` must name a file for each tensor");
    }
    shards.sort();
    shards.dedup();
    Ok(shards)
}

/// A list of names for a message, cut where it gets long.
pub fn describe(names: &[String]) -> String {
    if names.is_empty() {
        return "no files".to_string();
    }
    let mut text = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        text.push_str(&format!(" and {} more", names.len() - SHOWN_MAX));
    }
    text
}

/// The files of a data set that are learned: those with rows, of its part for training if it says which that is.
pub fn data(files: &[String]) -> Vec<&str> {
    let has_rows = |name: &&str| name.ends_with(".jsonl") || name.ends_with(".parquet");
    let rows: Vec<&str> = files.iter().map(String::as_str).filter(has_rows).collect();
    let is_of = |name: &str, part: &str| name.split(['/', '-', '_', '.']).any(|word| word == part);
    let train: Vec<&str> = rows.iter().copied().filter(|name| is_of(name, "train")).collect();
    let others = ["test", "validation", "valid", "dev", "eval"];
    let is_kept_back = |name: &&str| others.iter().any(|other| is_of(name, other));
    if train.is_empty() { rows.into_iter().filter(|name| !is_kept_back(name)).collect() } else { train }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_sets_give_their_part_for_training() {
        let names = |files: &[&str]| files.iter().map(|f| (*f).to_string()).collect::<Vec<_>>();
        let files = names(&["README.md", "data/train-0.parquet", "data/test-0.parquet"]);
        assert_eq!(data(&files), ["data/train-0.parquet"]);
        assert_eq!(data(&names(&["a.jsonl", "b.jsonl", "c.csv"])), ["a.jsonl", "b.jsonl"]);
        assert_eq!(data(&names(&["c.csv", "test.jsonl", "x/dev-1.parquet"])), [] as [&str; 0]);
        assert_eq!(data(&names(&["constraints/test.jsonl", "constraints/a.jsonl"])), ["constraints/a.jsonl"]);
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn one_gguf_or_the_one_q4_k_m() {
        let gguf = |file: &str, others| Plan::Gguf { file: file.into(), others };
        let plan = |names: &[&str]| choose("a/b", &list(names));
        assert_eq!(plan(&["README.md", "x-BF16.gguf"]).expect("one file"), gguf("x-BF16.gguf", 0));
        assert_eq!(plan(&["x-Q8_0.gguf", "x-Q4_K_M.gguf"]).expect("one Q4_K_M"), gguf("x-Q4_K_M.gguf", 1));
        for names in [&["x-Q8_0.gguf", "x-Q4_0.gguf"][..], &["x-Q4_K_M.gguf", "y-q4_k_m.gguf"]] {
            let error = plan(names).expect_err("several files").to_string();
            assert!(names.iter().all(|n| error.contains(n)) && error.contains("a/b:FILE"), "{error}");
        }
    }

    #[test]
    fn a_folder_has_a_config_and_weights() {
        let plan = |names: &[&str]| choose("a/b", &list(names));
        assert_eq!(plan(&["config.json", SINGLE_WEIGHTS]).expect("whole"), Plan::Folder { index: None });
        let sharded = Plan::Folder { index: Some(INDEX.into()) };
        assert_eq!(
            plan(&["config.json", INDEX, "model-00001-of-00002.safetensors"]).expect("sharded"),
            sharded
        );
        assert!(plan(&["config.json", "pytorch_model.bin"]).is_err());
        assert!(plan(&[SINGLE_WEIGHTS]).is_err());
        assert!(plan(&[]).expect_err("empty").to_string().contains("no files"));
    }

    #[test]
    fn indices_are_read_or_refused() {
        let index = br#"{"metadata": {}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}}"#;
        assert_eq!(shards(index).expect("an index"), ["1.safetensors", "2.safetensors"]);
        for bad in [&b"{"[..], b"{}", br#"{"weight_map": {}}"#, br#"{"weight_map": {"a": 1}}"#, b"\xff"] {
            assert!(shards(bad).is_err());
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
        assert!(describe(&names).ends_with("f11 and 8 more"));
    }
}
