//! `tangelo ls`: what the hub's cache holds.

use std::io::Write as _;

use anyhow::Result;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::hub::{self, Cache, Cached};

/// Characters of a commit that are shown.
const COMMIT_SHOWN: usize = 12;

/// List the models and data sets in the hub's cache
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the list.
///
/// # Errors
/// If the cache's place is unknown or the output is closed.
pub fn run(args: Args) -> Result<()> {
    let cache = Cache::from_env()?;
    let found = hub::cached(&cache);
    let mut out = std::io::stdout().lock();
    if args.json {
        let of = |is_dataset: bool, kind: &str| -> Vec<Value> {
            let found = found.iter().filter(|cached| cached.is_dataset() == is_dataset);
            found.map(|cached| to_json(kind, cached)).collect()
        };
        let (models, datasets) = (of(false, "model"), of(true, "dataset"));
        let document = json!({ "cache": cache.root(), "models": models, "datasets": datasets });
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
    } else if found.is_empty() {
        writeln!(out, "{} holds no models; `tangelo pull org/name` downloads one", cache.root().display())?;
    } else {
        found.iter().try_for_each(|cached| write!(out, "{}", to_text(cached)))?;
    }
    Ok(())
}

/// A line for the model or data set, one for each revision, one for each file.
fn to_text(cached: &Cached) -> String {
    let mut text = format!("{}  {}\n", cached.repo, HumanBytes(cached.bytes));
    for revision in &cached.revisions {
        let commit: String = revision.commit.chars().take(COMMIT_SHOWN).collect();
        let refs =
            if revision.refs.is_empty() { String::new() } else { format!(" ({})", revision.refs.join(", ")) };
        text.push_str(&format!("  {commit}{refs}\n"));
        let width = revision.files.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        for file in &revision.files {
            text.push_str(&format!("    {:width$}  {:>12}\n", file.name, HumanBytes(file.bytes).to_string()));
        }
    }
    if cached.incomplete_bytes > 0 {
        let bytes = HumanBytes(cached.incomplete_bytes);
        text.push_str(&format!(
            "  {bytes} of an interrupted download; `tangelo pull {}` continues it\n",
            cached.repo
        ));
    }
    text
}

fn to_json(kind: &str, cached: &Cached) -> Value {
    let revisions: Vec<Value> = cached
        .revisions
        .iter()
        .map(|r| {
            let files: Vec<Value> =
                r.files.iter().map(|f| json!({ "name": f.name, "bytes": f.bytes })).collect();
            json!({ "commit": r.commit, "refs": r.refs, "files": files })
        })
        .collect();
    json!({
        kind: cached.repo,
        "path": cached.path,
        "bytes": cached.bytes,
        "incomplete_bytes": cached.incomplete_bytes,
        "revisions": revisions,
    })
}
