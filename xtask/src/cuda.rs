//! The CUDA kernels compiled for every device, without one: `cargo run -p xtask -- cuda [--check]`.
//!
//! Two versions of NVRTC compile them, the oldest that knows each target, since drivers load what older versions made and
//! not what newer ones did. NVRTC comes from Python's package index by `pip install`, needs neither a driver nor a C++
//! compiler, and is kept in `target/cuda`; so are the images, in the form that `TANGELO_KERNEL_IMAGES` wants.
//!
//! A kernel that spills or has too much shared memory is an error. What each takes is kept in `bench/kernels.md`, so that a
//! change shows in review; `--check` fails if that file is not what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io, thread};

use xtask::ptxas::{self, Usage};

/// A compiler: the package, the library in it, and what it compiles for.
struct Compiler {
    package: &'static str,
    library: &'static str,
    targets: &'static [&'static str],
}

const COMPILERS: [Compiler; 2] = [
    // A100, GeForce RTX 30, Jetson Orin, RTX 40, H100; and PTX, from which drivers make code for devices not named here.
    Compiler {
        package: "nvidia-cuda-nvrtc-cu12==12.6.85",
        library: "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        targets: &["compute_80", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90"],
    },
    // B200, Jetson Thor, GeForce RTX 50, DGX Spark.
    Compiler {
        package: "nvidia-cuda-nvrtc==13.0.88",
        library: "nvidia/cu13/lib/libnvrtc.so.13",
        targets: &["sm_100", "sm_110", "sm_120", "sm_121"],
    },
];
/// Compilers at once.
const JOBS: usize = 2;
const SUMMARY: &str = "bench/kernels.md";
const HEADER: &str = "\
# What the CUDA kernels take

Made by `cargo run -p xtask -- cuda`: the most over all targets, as the compilers of the releases report it. Registers
and stack are per thread, shared memory is per block and static.

";

/// Compiles everything; an error is a sentence.
pub fn run(root: &Path, check: bool) -> Result<String, String> {
    let folder = root.join("target/cuda");
    let mut libraries = vec![];
    for compiler in &COMPILERS {
        match install(compiler, &folder) {
            Ok(library) => libraries.push(library),
            Err(why) => return Ok(format!("skipped: {} cannot be installed: {why}", compiler.package)),
        }
    }
    let program = build(root)?;
    let images = folder.join("images");
    match fs::remove_dir_all(&images) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{} cannot be emptied: {e}", images.display()));
        }
        _ => {}
    }
    let logs = compile_all(&program, &libraries, &images)?;
    let mut most: BTreeMap<String, Usage> = BTreeMap::new();
    let mut faults = vec![];
    for (target, log) in logs {
        let usages = ptxas::parse(&log);
        println!("{target}\n\n{}", ptxas::table(&usages));
        for (kernel, usage) in usages {
            faults.extend(usage.fault().map(|fault| format!("`{kernel}` {fault} on {target}")));
            let before = most.get(&kernel).copied().unwrap_or_default();
            most.insert(kernel, before.max(usage));
        }
    }
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    keep(&root.join(SUMMARY), &format!("{HEADER}{}", ptxas::table(&most)), check)?;
    Ok(format!(
        "cuda: {} kernels; TANGELO_KERNEL_IMAGES=target/cuda/images makes them part of a build",
        most.len()
    ))
}

/// The compiler's library, fetched if it is not there.
fn install(compiler: &Compiler, folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.join(compiler.package.replace("==", "-"));
    let library = folder.join(compiler.library);
    if !library.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        output("pip install", pip.arg(folder).arg(compiler.package))?;
    }
    if library.exists() { Ok(library) } else { Err(format!("it has no {}", compiler.library)) }
}

/// Builds the program that calls a compiler; it lies beside this one. It is a program of `ops` and not an example, since those
/// need what tests need: the emulator, and so a C++ compiler.
fn build(root: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "tangelo-ops", "--bin", "kernels"]).current_dir(root);
    // The images are what is about to be made.
    output("cargo build", cargo.env_remove("TANGELO_KERNEL_IMAGES"))?;
    let this = env::current_exe().map_err(|e| format!("this program does not know where it is: {e}"))?;
    Ok(this.with_file_name("kernels"))
}

/// The compiler's messages for each target.
fn compile_all(
    program: &Path,
    libraries: &[PathBuf],
    images: &Path,
) -> Result<Vec<(&'static str, String)>, String> {
    let pairs = COMPILERS.iter().zip(libraries);
    let jobs: Vec<_> = pairs.flat_map(|(c, library)| c.targets.iter().map(move |t| (library, *t))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![]);
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some((i, (library, target))) = take(&jobs, &next) {
                    let mut compile = Command::new(program);
                    let log = output(target, compile.arg(library).arg(target).arg(images));
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, *target, log));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, ..)| *i);
    done.into_iter().map(|(_, target, log)| Ok((target, log?))).collect()
}

/// The next of a list that several threads share.
fn take<'a, T>(list: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    list.get(i).map(|item| (i, item))
}

/// What a command prints; its messages if it fails.
fn output(what: &str, command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{what}: {e}"))?;
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    } else {
        Err(format!("{what} failed ({status}): {}", String::from_utf8_lossy(&stderr).trim()))
    }
}

/// Writes the summary, or compares it with what is there.
fn keep(path: &Path, text: &str, check: bool) -> Result<(), String> {
    if !check {
        return fs::write(path, text).map_err(|e| format!("{SUMMARY} cannot be written: {e}"));
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    let missing = |a: &str, b: &str, sign| {
        a.lines()
            .filter(|l| !b.lines().any(|other| other == *l))
            .map(|l| format!("\n{sign} {l}"))
            .collect::<String>()
    };
    if kept == text {
        return Ok(());
    }
    let difference = missing(&kept, text, '-') + &missing(text, &kept, '+');
    Err(format!("{SUMMARY} is not what the compilers report; run `cargo run -p xtask -- cuda`:{difference}"))
}
