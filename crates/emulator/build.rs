//! Compiles the emulator and every kernel of `ops` with the host's C++ compiler into one library, `libcuda.so`.
//!
//! A kernel file becomes a translation unit of its own, in an unnamed namespace so that names cannot clash. Its kernels are
//! found in what the preprocessor makes of it (`KERNEL` leaves a constant per kernel), so macros may define some.
//! Objects whose preprocessed text has not changed are kept.
//!
//! Without a compiler, or for another target than this machine, there is no library, and `load` says why.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// What `KERNEL` in `emulated.h` begins the name of its constant with.
const MARK: &str = "emulated_threads_";
/// Compilers at once.
const JOBS: usize = 2;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder"));
    println!("cargo::rerun-if-env-changed=CXX");
    for watched in ["build.rs", "emulator", "tests/kernel.cu", "../ops/src"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    match Compiler::find() {
        Ok(compiler) => {
            if let Err(problem) = build(&compiler, &out) {
                eprintln!("{problem}");
                std::process::exit(1);
            }
            println!("cargo::rustc-env=TANGELO_EMULATOR_FOLDER={}", out.display());
        }
        Err(reason) => {
            println!("cargo::warning=GPU kernels will not be tested: {reason}");
            println!("cargo::rustc-env=TANGELO_EMULATOR_MISSING={reason}");
        }
    }
}

/// A C++ compiler and what all files are compiled with.
struct Compiler {
    program: String,
    flags: Vec<String>,
}

impl Compiler {
    fn find() -> Result<Compiler, String> {
        let variable = |name| env::var(name).expect("cargo sets it");
        let (host, target) = (variable("HOST"), variable("TARGET"));
        if host != target {
            return Err(format!("the emulator of a GPU runs on the machine that builds it, not on {target}"));
        }
        let arch = variable("CARGO_CFG_TARGET_ARCH");
        if variable("CARGO_CFG_TARGET_OS") != "linux" || !["x86_64", "aarch64"].contains(&arch.as_str()) {
            return Err(format!(
                "the emulator of a GPU is written for Linux on x86-64 and aarch64, not for {target}"
            ));
        }
        let named = env::var("CXX").ok();
        let candidates = named.as_deref().into_iter().chain(["c++", "g++", "clang++"]);
        let works = |program: &&str| {
            Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
        };
        let program =
            candidates.into_iter().find(works).ok_or("no C++ compiler was found (c++, g++, clang++, CXX)")?;
        Ok(Compiler {
            program: program.to_string(),
            flags: flags(Path::new(&variable("CARGO_MANIFEST_DIR"))),
        })
    }

    fn run(&self, args: &[&str]) -> Result<Output, String> {
        let output = Command::new(&self.program).args(&self.flags).args(args).output();
        let output = output.map_err(|e| format!("{}: {e}", self.program))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(format!("{} {}\n{}", self.program, args.join(" "), String::from_utf8_lossy(&output.stderr)))
    }
}

fn flags(root: &Path) -> Vec<String> {
    // Contracting a product and a sum would change bits; kernels look at the same bytes as different types.
    let mut flags: Vec<String> =
        "-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing \
         -fno-math-errno -pthread -DTANGELO_EMULATED"
            .split_whitespace()
            .map(str::to_string)
            .collect();
    // `fma` is an instruction where the processor has one, and a slow but equal function elsewhere.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
        flags.extend(["-mavx2", "-mfma"].map(String::from));
    }
    flags.push(format!("-I{}", root.join("emulator").display()));
    flags.push(format!("-I{}", root.join("../ops/src/cuda").display()));
    flags
}

/// A file to compile: the emulator's own, or a wrapper around a kernel file.
struct Unit {
    source: PathBuf,
    object: PathBuf,
    /// Of a kernel file, what its static shared memory is called.
    section: Option<String>,
}

fn build(compiler: &Compiler, out: &Path) -> Result<(), String> {
    let units = units(out).map_err(|e| format!("reading the sources: {e}"))?;
    let (queue, problems) = (Mutex::new(units.iter()), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("no thread panics").next();
    let work = || {
        while let Some(unit) = next() {
            if let Err(problem) = compile(compiler, unit) {
                problems.lock().expect("no thread panics").push(problem);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(work);
        }
    });
    let problems = problems.into_inner().expect("no thread panics");
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let library = out.join("libcuda.so");
    let mut args: Vec<String> = units.iter().map(|unit| unit.object.display().to_string()).collect();
    args.extend(["-shared", "-Wl,-soname,libcuda.so", "-o"].map(String::from));
    args.push(library.display().to_string());
    compiler.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).map(|_| ())
}

/// All units, with the wrappers written.
fn units(out: &Path) -> io::Result<Vec<Unit>> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut units = Vec::new();
    for source in listed(&root.join("emulator"), "cpp")? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        units.push(Unit { source, object: out.join(name).with_extension("o"), section: None });
    }
    let mut kernels = vec![root.join("tests/kernel.cu")];
    for folder in fs::read_dir(root.join("../ops/src"))? {
        let folder = folder?.path();
        if folder.is_dir() {
            kernels.extend(listed(&folder, "cu")?);
        }
    }
    for kernel in kernels {
        let folder = kernel.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let stem = kernel.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("shared_{folder}_{stem}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let source = out.join(&name).with_extension("cpp");
        let text = format!(
            "#define EMULATED_SHARED \"{name}\"\n#include \"device.cuh\"\n#include \"math.cuh\"\n\
             namespace {{\n#include \"{}\"\n}}\n",
            kernel.display()
        );
        write_if_new(&source, &text)?;
        units.push(Unit { source, object: out.join(&name).with_extension("o"), section: Some(name) });
    }
    Ok(units)
}

/// Files of a folder with this extension, sorted.
fn listed(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn write_if_new(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) { Ok(()) } else { fs::write(path, text) }
}

/// Compiles one unit unless its preprocessed text, and the command, are those of its object.
fn compile(compiler: &Compiler, unit: &Unit) -> Result<(), String> {
    let shown = |path: &Path| path.display().to_string();
    let (source, object) = (shown(&unit.source), shown(&unit.object));
    let text = compiler.run(&["-E", &source])?.stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let stamp = format!("{} {}\n{text}", compiler.program, compiler.flags.join(" "));
    let stamp_path = unit.object.with_extension("stamp");
    if unit.object.exists() && fs::read(&stamp_path).is_ok_and(|old| old == stamp.as_bytes()) {
        return Ok(());
    }
    let failed = |e: io::Error| format!("{object}: {e}");
    if let Some(section) = &unit.section {
        let whole = unit.source.with_extension("registered.cpp");
        let wrapper = fs::read_to_string(&unit.source).map_err(failed)?;
        fs::write(&whole, wrapper + &registration(section, &kernels_in(&text))).map_err(failed)?;
        compiler.run(&["-c", &shown(&whole), "-o", &object])?;
    } else {
        // Products of fragments are loops over bytes that a vectoriser makes eight times faster.
        compiler.run(&["-O3", "-c", &source, "-o", &object])?;
    }
    fs::write(stamp_path, stamp).map_err(failed)
}

/// Names of the kernels in a preprocessed file.
fn kernels_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let after = text.split(MARK).skip(1);
    after.map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default()).collect()
}

/// Code that tells the driver of the kernels. The linker marks where a section begins and ends, if there is one.
fn registration(section: &str, kernels: &BTreeSet<&str>) -> String {
    let mut code = format!(
        "extern \"C\" __attribute__((weak, visibility(\"hidden\"))) u8 __start_{section}[], __stop_{section}[];\n"
    );
    for name in kernels {
        code += &format!(
            "static emulated::Registered registered_{name}(\"{name}\", {MARK}{name}, {name}, __start_{section}, \
             __stop_{section});\n"
        );
    }
    code
}
