//! `tangelo ls`: what the hub's cache holds.

use std::io::Write as _;

use anyhow::Result;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::hub::{self, Cache, CachedModel};

/// Characters of a commit that are shown.
const COMMIT_SHOWN: usize = 12;

/// List the models in the hub's cache
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
    let models = hub::models(&cache);
    let mut out = std::io::stdout().lock();
    if args.json {
        let models: Vec<Value> = models.iter().map(to_json).collect();
        let document = json!({ "cache": cache.root(), "models": models });
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
    } else if models.is_empty() {
        writeln!(out, "{} holds no models; `tangelo pull org/name` downloads one", cache.root().display())?;
    } else {
        models.iter().try_for_each(|m| write!(out, "{}", to_text(m)))?;
    }
    Ok(())
}

/// A line for the model, one for each revision, one for each file.
fn to_text(model: &CachedModel) -> String {
    let mut text = format!("{}  {}\n", model.repo, HumanBytes(model.bytes));
    for revision in &model.revisions {
        let commit: String = revision.commit.chars().take(COMMIT_SHOWN).collect();
        let refs =
            if revision.refs.is_empty() { String::new() } else { format!(" ({})", revision.refs.join(", ")) };
        text.push_str(&format!("  {commit}{refs}\n"));
        let width = revision.files.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        for file in &revision.files {
            text.push_str(&format!("    {:width$}  {:>12}\n", file.name, HumanBytes(file.bytes).to_string()));
        }
    }
    if model.incomplete_bytes > 0 {
        let bytes = HumanBytes(model.incomplete_bytes);
        text.push_str(&format!(
            "  {bytes} of an interrupted download; `tangelo pull {}` continues it\n",
            model.repo
        ));
    }
    text
}

fn to_json(model: &CachedModel) -> Value {
    let revisions: Vec<Value> = model
        .revisions
        .iter()
        .map(|r| {
            let files: Vec<Value> =
                r.files.iter().map(|f| json!({ "name": f.name, "bytes": f.bytes })).collect();
            json!({ "commit": r.commit, "refs": r.refs, "files": files })
        })
        .collect();
    json!({
        "model": model.repo,
        "path": model.path,
        "bytes": model.bytes,
        "incomplete_bytes": model.incomplete_bytes,
        "revisions": revisions,
    })
}
