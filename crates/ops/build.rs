//! Makes the CUDA kernels part of the crate: their sources always, and images compiled ahead from the folder that
//! `TANGELO_KERNEL_IMAGES` names (from the repository's root), which `cargo run -p xtask -- cuda` fills. Nothing is compiled
//! here, so no build needs a CUDA compiler. Without images the program compiles the sources on the machine it runs on.
//!
//! A folder of images holds `<version of CUDA>/<target>`, such as `12.6/sm_86` or `12.6/compute_80`, and `sources`, the hash
//! of the sources they were made from: images of other sources are refused.

#[path = "src/cuda/image/fnv.rs"]
mod fnv;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

const IMAGES: &str = "TANGELO_KERNEL_IMAGES";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-env-changed={IMAGES}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    let sources = sources(&root.join("src"));
    let unit = unit(&sources);
    let mut parts = vec![unit.as_bytes()];
    parts.extend(sources.iter().flat_map(|(name, (_, text))| [name.as_bytes(), text.as_bytes()]));
    let key = fnv::fnv1a(&parts);

    let mut code = format!("static KEY: u64 = {key:#018x};\nstatic UNIT: &str = {unit:?};\n");
    code += "static SOURCES: &[(&str, &str)] = &[\n";
    for (name, (path, _)) in &sources {
        writeln!(code, "    ({name:?}, include_str!({path:?})),").expect("memory takes everything");
    }
    code += "];\nstatic IMAGES: &[Image] = &[\n";
    if let Some(folder) = env::var_os(IMAGES).filter(|f| !f.is_empty()) {
        code += &images(&root.join("../..").join(folder), key);
    }
    code += "];\n";
    fs::write(out.join("kernels.rs"), code)
        .unwrap_or_else(|e| fail(&format!("kernels.rs cannot be written: {e}")));
}

/// Every kernel and header below `src`, by the name under which it is included: `matmul/dense.cu`, `device.cuh`.
fn sources(src: &Path) -> BTreeMap<String, (PathBuf, String)> {
    let mut sources = BTreeMap::new();
    for folder in entries(src).into_iter().filter(|p| p.is_dir()) {
        for path in entries(&folder) {
            let file = name(&path);
            let included = match file.rsplit_once('.') {
                Some((_, "cu")) => format!("{}/{file}", name(&folder)),
                Some((_, "cuh")) => file,
                _ => continue,
            };
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|e| fail(&format!("{} cannot be read: {e}", path.display())));
            if sources.insert(included.clone(), (path, text)).is_some() {
                fail(&format!("two headers have the name {included}; rename one of them"));
            }
        }
    }
    sources
}

/// The text that is compiled: the headers that kernels include, then each file of kernels in a namespace of its own, so that
/// their helpers may have the same names. Kernels themselves are `extern "C"`, which namespaces do not touch.
fn unit(sources: &BTreeMap<String, (PathBuf, String)>) -> String {
    let mut headers = BTreeSet::new();
    let mut kernels = String::new();
    for (name, (_, text)) in sources.iter().filter(|(name, _)| name.ends_with(".cu")) {
        headers.extend(text.lines().filter(|line| line.starts_with("#include \"")));
        let space = name.trim_end_matches(".cu").replace('/', "_");
        writeln!(kernels, "namespace op_{space} {{\n#include \"{name}\"\n}}")
            .expect("memory takes everything");
    }
    headers.into_iter().map(|line| format!("{line}\n")).collect::<String>() + &kernels
}

/// A line of code for each image.
fn images(folder: &Path, key: u64) -> String {
    println!("cargo::rerun-if-changed={}", folder.display());
    let made_from = fs::read_to_string(folder.join("sources")).unwrap_or_default();
    if made_from.trim() != format!("{key:016x}") {
        let remedy = "run `cargo run -p xtask -- cuda`, or unset it";
        fail(&format!("{IMAGES} names {}, which has no images of these sources; {remedy}", folder.display()));
    }
    let mut code = String::new();
    for cuda in entries(folder).into_iter().filter(|p| p.is_dir()) {
        for path in entries(&cuda) {
            let path = path.canonicalize().unwrap_or(path);
            match (version(&name(&cuda)), target(&name(&path))) {
                (Some(cuda), Some(target)) => writeln!(
                    code,
                    "    Image {{ cuda: {cuda}, target: Target::{target}, bytes: include_bytes!({path:?}) }},"
                )
                .expect("memory takes everything"),
                _ => fail(&format!("{} is no image; remove it", path.display())),
            }
        }
    }
    code
}

/// `12.6` as 12060.
fn version(text: &str) -> Option<i32> {
    let (major, minor) = text.split_once('.')?;
    Some(1000 * major.parse::<i32>().ok()? + 10 * minor.parse::<i32>().ok()?)
}

/// `sm_86` as `Sm(86)`.
fn target(text: &str) -> Option<String> {
    let (kind, number) = text.split_once('_')?;
    let number: i32 = number.parse().ok()?;
    match kind {
        "sm" => Some(format!("Sm({number})")),
        "compute" => Some(format!("Compute({number})")),
        _ => None,
    }
}

/// What lies in a folder, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed =
        fs::read_dir(folder).and_then(|files| files.map(|f| Ok(f?.path())).collect::<Result<Vec<_>, _>>());
    let mut paths = listed.unwrap_or_else(|e| fail(&format!("{} cannot be listed: {e}", folder.display())));
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    process::exit(1)
}
