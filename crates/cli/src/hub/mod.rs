//! Models by name: looking them up in the hub's cache and downloading what is missing.
//!
//! The cache is the one every program of the Hugging Face ecosystem shares, so a model downloaded here is found
//! by the others and the other way round:
//!
//! ```text
//! models--org--name/                 or datasets--org--name
//!     refs/main                      the commit that the branch pointed to
//!     blobs/<etag>                   contents, named by the hub's ETag (SHA-256 for large files)
//!     blobs/<etag>.incomplete        a download that was interrupted, continued by the next one
//!     snapshots/<commit>/<file>      links into blobs
//! ```
//!
//! The `hf-hub` crate supplies the names (folders, URLs, the shape of a listing). Transfers are our own, because
//! its synchronous interface neither checks hashes nor what a server answers to a range request, fails on a
//! complete but unrenamed download, and joins file names and ETags to paths as the server sends them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tangelo_core::limits::CONFIG_BYTES_MAX;

pub mod cache;
mod client;
mod download;
mod id;
mod inventory;
mod plan;
mod remove;

pub use cache::Cache;
use client::{Client, Remote};
pub use id::HubId;
pub use inventory::{Cached, cached};
use plan::Plan;
pub use remove::remove;

/// The path of a model given by the user: a GGUF file or a folder holding `config.json`.
///
/// An existing path is returned as it is. Otherwise a hub id is looked up in the cache, which needs no network,
/// and downloaded with progress on standard error if it is not there.
///
/// # Errors
/// One sentence that names what was tried: text that is neither a path nor a hub id, a model the hub does not
/// have or does not give, no network, no space.
pub fn resolve(model: &str) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let looks_like_file = [".gguf", ".safetensors", ".json"].iter().any(|e| model.ends_with(e));
    let id = match model.parse::<HubId>() {
        Ok(id) if id.file.is_some() || !looks_like_file => id,
        _ => bail!("`{model}` is neither an existing path nor a hub id such as `org/name[:file][@revision]`"),
    };
    let cache = Cache::from_env()?;
    if let Some(path) = find(&cache, &id) {
        return Ok(path);
    }
    let root = cache.root().display().to_string();
    pull(&cache, &id).with_context(|| {
        format!("`{model}` is no path, is not in the cache at {root}, and cannot be downloaded")
    })
}

/// The files behind a name in a recipe's data: an existing path, or a data set of the hub,
/// `datasets/org/name[:file][@revision]`, of which what is not in the cache is downloaded: the files for training, or one.
///
/// # Errors
/// As [`resolve`]; also if a data set has no JSONL or parquet files.
pub fn resolve_data(name: &Path) -> Result<Vec<PathBuf>> {
    let text = name.to_string_lossy();
    if name.exists() || !text.starts_with("datasets/") {
        return Ok(vec![name.to_path_buf()]);
    }
    pull_data(&Cache::from_env()?, &HubId::of_dataset(&text).map_err(|why| anyhow!(why))?)
}

/// The files of a data set, of which what is not in the cache is downloaded.
///
/// # Errors
/// As [`resolve_data`].
pub fn pull_data(cache: &Cache, id: &HubId) -> Result<Vec<PathBuf>> {
    if let (Some(file), Some(commit)) = (&id.file, cache.commit(&id.repo, &id.revision)) {
        let path = cache.snapshot(&id.repo, &commit).join(file);
        if path.is_file() {
            return Ok(vec![path]);
        }
    }
    let client = Client::from_env()?;
    if let Some(file) = &id.file {
        return Ok(vec![pull_file(cache, &client, id, file)?]);
    }
    let listing = match client.listing(id) {
        Ok(listing) => listing,
        // Without a network, what was downloaded before is better than nothing.
        Err(error) if error.is_transient() => match cached_data(cache, id) {
            files if files.is_empty() => bail!("{error}"),
            files => return Ok(files),
        },
        Err(error) => bail!("{error}"),
    };
    let files = plan::data(&listing.files);
    ensure!(
        !files.is_empty(),
        "{id} has neither .jsonl nor .parquet files; name another file with `{id}:FILE`"
    );
    let get = |file: &&str| -> Result<PathBuf> {
        let remote = client.metadata_at(id, &listing.commit, file).map_err(|e| anyhow!("{e}"))?;
        fetch(cache, &client, id, &listing.commit, file, &remote)
    };
    let paths = files.iter().map(get).collect::<Result<Vec<_>>>()?;
    cache.write_ref(&id.repo, &id.revision, &listing.commit)?;
    Ok(paths)
}

/// The files of a data set that are in the cache.
fn cached_data(cache: &Cache, id: &HubId) -> Vec<PathBuf> {
    let Some(commit) = cache.commit(&id.repo, &id.revision) else { return Vec::new() };
    let snapshot = cache.snapshot(&id.repo, &commit);
    let names: Vec<String> = inventory::files(&snapshot).into_iter().map(|file| file.name).collect();
    plan::data(&names).into_iter().map(|file| snapshot.join(file)).collect()
}

/// Where a model is in the cache, if all of it is there. Needs no network.
fn find(cache: &Cache, id: &HubId) -> Option<PathBuf> {
    let commit = cache.commit(&id.repo, &id.revision)?;
    let snapshot = cache.snapshot(&id.repo, &commit);
    if let Some(file) = &id.file {
        return Some(snapshot.join(file)).filter(|p| p.is_file());
    }
    let names: Vec<String> = inventory::files(&snapshot).into_iter().map(|f| f.name).collect();
    match plan::choose(&id.repo, &names).ok()? {
        Plan::Gguf { file, .. } => Some(snapshot.join(file)),
        Plan::Folder { index: None } => Some(snapshot),
        Plan::Folder { index: Some(index) } => {
            let shards = plan::shards(&std::fs::read(snapshot.join(index)).ok()?).ok()?;
            shards.iter().all(|s| names.contains(s)).then_some(snapshot)
        }
    }
}

/// Downloads what `id` names and isn't in the cache, and returns where it is.
///
/// # Errors
/// As [`resolve`].
pub fn pull(cache: &Cache, id: &HubId) -> Result<PathBuf> {
    let client = Client::from_env()?;
    match &id.file {
        Some(file) => pull_file(cache, &client, id, file),
        None => pull_model(cache, &client, id),
    }
}

/// One named file. It needs no listing; one is fetched only to say what there is instead.
fn pull_file(cache: &Cache, client: &Client, id: &HubId, file: &str) -> Result<PathBuf> {
    let remote = match client.metadata(id, &id.revision, file) {
        Ok(remote) => remote,
        Err(error) if error.is_missing() => {
            let listing = client.listing(id).map_err(|e| anyhow!("{e}"))?;
            let has = plan::describe(&listing.files);
            bail!("`{}` has no file `{file}` at revision `{}`; it has {has}", id.repo, id.revision);
        }
        Err(error) => bail!("{error}"),
    };
    let commit = remote.commit.clone().ok_or_else(|| {
        anyhow!(
            "{} does not say which commit `{file}` belongs to; check that HF_ENDPOINT names a hub",
            remote.url
        )
    })?;
    let path = fetch(cache, client, id, &commit, file, &remote)?;
    cache.write_ref(&id.repo, &id.revision, &commit)?;
    Ok(path)
}

/// Everything needed to run a model: the files that [`plan`] chooses, small ones first, all of one commit.
fn pull_model(cache: &Cache, client: &Client, id: &HubId) -> Result<PathBuf> {
    let listing = client.listing(id).map_err(|e| anyhow!("{e}"))?;
    let plan = plan::choose(&id.repo, &listing.files)?;
    let get = |file: &str| -> Result<PathBuf> {
        let remote = client.metadata_at(id, &listing.commit, file).map_err(|e| anyhow!("{e}"))?;
        fetch(cache, client, id, &listing.commit, file, &remote)
    };
    let path = match &plan {
        Plan::Gguf { file, others } => {
            if *others > 0 {
                eprintln!("{file} is the Q4_K_M file of {}; name another with `{0}:FILE`", id.repo);
            }
            get(file)?
        }
        Plan::Folder { index } => {
            for file in plan::companions(&listing.files) {
                get(file)?;
            }
            let weights = match index {
                Some(index) => read_index(&get(index)?, &listing.files)?,
                None => vec![plan::SINGLE_WEIGHTS.to_string()],
            };
            for file in &weights {
                get(file)?;
            }
            cache.snapshot(&id.repo, &listing.commit)
        }
    };
    // The branch is moved last: until everything has arrived, the previous download stays the one that is found.
    cache.write_ref(&id.repo, &id.revision, &listing.commit)?;
    Ok(path)
}

/// Brings one file into the cache and links it into its snapshot.
fn fetch(
    cache: &Cache,
    client: &Client,
    id: &HubId,
    commit: &str,
    file: &str,
    remote: &Remote,
) -> Result<PathBuf> {
    ensure!(id::is_name(commit), "{} answered with the unusable commit name `{commit}`", remote.url);
    ensure!(id::is_name(&remote.etag), "{} answered with the unusable ETag `{}`", remote.url, remote.etag);
    let blob = cache.blob(&id.repo, &remote.etag);
    download::fetch(client, remote, file, &blob)?;
    cache.link(&id.repo, commit, file, &remote.etag)
}

/// The shards that an index names, each of which must be in the listing.
fn read_index(path: &Path, listing: &[String]) -> Result<Vec<String>> {
    let bytes = std::fs::metadata(path)?.len();
    ensure!(bytes <= CONFIG_BYTES_MAX, "{} has {bytes} bytes, more than an index can have", path.display());
    let shards = plan::shards(&std::fs::read(path)?)?;
    for shard in &shards {
        ensure!(
            listing.contains(shard),
            "the index {} names `{shard}`, which the model does not have",
            path.display()
        );
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache in the build's temporary folder, with `files` of commit `c1`, which `main` stands for.
    fn cache(test: &str, files: &[(&str, &str)]) -> Cache {
        let root = std::env::temp_dir().join(format!("tangelo-hub-{test}-{}", std::process::id()));
        let cache = Cache::new(root);
        for (i, (file, text)) in files.iter().enumerate() {
            let blob = cache.blob("org/name", &format!("e{i}"));
            std::fs::create_dir_all(blob.parent().expect("blobs")).expect("a folder");
            std::fs::write(blob, text).expect("a file");
            cache.link("org/name", "c1", file, &format!("e{i}")).expect("a link");
        }
        cache.write_ref("org/name", "main", "c1").expect("a reference");
        cache
    }

    fn look(test: &str, id: &str, files: &[(&str, &str)]) -> Option<PathBuf> {
        let cache = cache(test, files);
        let found = find(&cache, &id.parse().expect("an id"));
        let found = found.map(|p| p.strip_prefix(cache.folder("org/name")).expect("inside").to_path_buf());
        std::fs::remove_dir_all(cache.root()).expect("the cache goes");
        found
    }

    #[test]
    fn a_whole_model_is_found_without_a_network() {
        let path = |p: &str| Some(PathBuf::from(p));
        let gguf = [("x.gguf", "x"), ("README.md", "r")];
        assert_eq!(look("gguf", "org/name", &gguf), path("snapshots/c1/x.gguf"));
        assert_eq!(look("file", "org/name:x.gguf", &gguf), path("snapshots/c1/x.gguf"));
        assert_eq!(look("commit", "org/name:x.gguf@c1", &gguf), path("snapshots/c1/x.gguf"));
        assert_eq!(look("missing", "org/name:y.gguf", &gguf), None);
        assert_eq!(look("revision", "org/name@v2", &gguf), None);
        let folder = [("config.json", "{}"), ("model.safetensors", "x")];
        assert_eq!(look("folder", "org/name", &folder), path("snapshots/c1"));
    }

    #[test]
    fn half_a_model_is_not_found() {
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        let mut files =
            vec![("config.json", "{}"), ("model.safetensors.index.json", index), ("1.safetensors", "x")];
        assert_eq!(look("half", "org/name", &files), None);
        files.push(("2.safetensors", "y"));
        assert_eq!(look("both", "org/name", &files), Some(PathBuf::from("snapshots/c1")));
    }

    #[test]
    fn what_is_neither_path_nor_id_is_said() {
        for text in ["models/x.gguf", "nothing-here", "./nothing/here", "../nothing"] {
            let error = resolve(text).expect_err(text).to_string();
            assert!(
                error.contains(text) && error.contains("neither an existing path nor a hub id"),
                "{error}"
            );
        }
        assert_eq!(
            resolve(env!("CARGO_MANIFEST_DIR")).expect("a path"),
            Path::new(env!("CARGO_MANIFEST_DIR"))
        );
    }
}
