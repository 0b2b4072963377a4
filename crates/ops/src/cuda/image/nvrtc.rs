//! NVIDIA's run-time compiler, a library of its own beside the driver, loaded when it is needed.
//!
//! It compiles the kernels as one unit, with the same options everywhere: here for the device at hand, and in
//! `src/bin/kernels.rs` for every device of a release.

use super::target::{Target, number};
use super::{ImageError, KEY, SOURCES, UNIT, version};
use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::{env, fs, ptr};

/// No contraction: a kernel says `fma` where the contract of its operation does. The compiler's report goes to its log.
const OPTIONS: [&str; 4] = ["-fmad=false", "-std=c++17", "-default-device", "--ptxas-options=-v"];
/// The library's names, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// How the name of the library begins that it opens while compiling.
const BUILTINS: &str = "libnvrtc-builtins.so";

type Program = *mut c_void;
type Strings = *const *const c_char;

/// The functions used, by the names that the library has for them. All return 0 for success.
macro_rules! functions {
    ($($name:ident = $symbol:literal ($($parameter:ty),*);)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($parameter),*) -> c_int,)*
        }

        impl Functions {
            /// # Safety
            /// The library must be NVRTC, and stay loaded as long as these are called.
            unsafe fn of(library: &Library) -> Result<Functions, libloading::Error> {
                // SAFETY: the types are those of nvrtc.h.
                unsafe { Ok(Functions { $($name: *library.get($symbol)?,)* }) }
            }
        }
    };
}

functions! {
    version = "nvrtcVersion" (*mut c_int, *mut c_int);
    num_targets = "nvrtcGetNumSupportedArchs" (*mut c_int);
    targets = "nvrtcGetSupportedArchs" (*mut c_int);
    create = "nvrtcCreateProgram" (*mut Program, *const c_char, *const c_char, c_int, Strings, Strings);
    destroy = "nvrtcDestroyProgram" (*mut Program);
    compile = "nvrtcCompileProgram" (Program, c_int, Strings);
    log_size = "nvrtcGetProgramLogSize" (Program, *mut usize);
    log = "nvrtcGetProgramLog" (Program, *mut c_char);
    cubin_size = "nvrtcGetCUBINSize" (Program, *mut usize);
    cubin = "nvrtcGetCUBIN" (Program, *mut c_char);
    ptx_size = "nvrtcGetPTXSize" (Program, *mut usize);
    ptx = "nvrtcGetPTX" (Program, *mut c_char);
}

/// A loaded compiler.
pub struct Compiler {
    functions: Functions,
    version: i32,
    targets: Vec<i32>,
    /// Keeps the functions where they are.
    _libraries: Vec<Library>,
}

/// The kernels for one target.
pub struct Compiled {
    /// A cubin, or PTX with the zero byte at its end that the driver wants.
    pub image: Vec<u8>,
    /// What the compiler said: registers, shared memory and spills of each kernel, if it made machine code.
    pub log: String,
}

impl Compiler {
    /// Loads the compiler at `library`, a path or a name that the system's loader knows.
    ///
    /// # Errors
    /// If it cannot be loaded or is another library.
    pub fn load(library: &Path) -> Result<Compiler, ImageError> {
        let failure =
            |e: libloading::Error| ImageError::Library { path: library.into(), cause: e.to_string() };
        // The loader finds the second library by its name if it is loaded already; else only where it looks anyway.
        let mut libraries = Vec::new();
        for path in builtins_beside(library) {
            // SAFETY: loading NVRTC runs its initialisers, as in every program linked to it.
            libraries.push(unsafe { Library::new(&path) }.map_err(failure)?);
        }
        // SAFETY: as above; the functions are called only while the libraries are kept.
        let (library, functions) = unsafe {
            let library = Library::new(library).map_err(failure)?;
            let functions = Functions::of(&library).map_err(failure)?;
            (library, functions)
        };
        libraries.push(library);
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the pointers are those of locals, and the list is as long as the library says.
        let targets = unsafe {
            (functions.version)(&mut major, &mut minor);
            (functions.num_targets)(&mut count);
            let mut targets = vec![0; usize::try_from(count).unwrap_or(0)];
            (functions.targets)(targets.as_mut_ptr());
            targets
        };
        Ok(Compiler { functions, version: 1000 * major + 10 * minor, targets, _libraries: libraries })
    }

    /// The first installed compiler that makes something for a device which a driver that serves CUDA `driver` can load.
    pub(super) fn find(driver: i32, capability: (i32, i32)) -> Option<Compiler> {
        let named = NAMES.map(PathBuf::from).into_iter();
        let mut candidates = named.chain(folders().into_iter().flat_map(|f| NAMES.map(|name| f.join(name))));
        candidates.find_map(|path| {
            let compiler = Compiler::load(&path).ok()?;
            compiler.target(capability).is_loaded_by(driver, compiler.version).then_some(compiler)
        })
    }

    /// Its version as drivers write theirs: 1000 · major + 10 · minor.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// What to compile for a device: its machine code, or PTX if this compiler is older than the device.
    pub(super) fn target(&self, capability: (i32, i32)) -> Target {
        let device = number(capability);
        match self.targets.iter().copied().filter(|&t| t <= device).max() {
            Some(older) if older < device => Target::Compute(older),
            _ => Target::Sm(device),
        }
    }

    /// The hash of all sources.
    pub fn sources() -> u64 {
        KEY
    }

    /// Identifies what [`Compiler::compile`] makes for `target`.
    pub(super) fn key(&self, target: Target) -> String {
        format!("{KEY:016x}-{}-{target}", version(self.version))
    }

    /// Compiles all kernels.
    ///
    /// # Errors
    /// If the compiler does not know the target or finds a mistake.
    pub fn compile(&self, target: Target) -> Result<Compiled, ImageError> {
        let program = Source::new(&self.functions)?;
        let options = [format!("--gpu-architecture={target}")].into_iter().chain(OPTIONS.map(String::from));
        let options = c_strings(options);
        // SAFETY: the program is one of this library, and the options outlive the call.
        let status = unsafe {
            (self.functions.compile)(program.handle, options.len() as c_int, pointers(&options).as_ptr())
        };
        let log = program.read(self.functions.log_size, self.functions.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_string();
        if status != 0 {
            return Err(ImageError::Compile { version_found: self.version, target, status, log });
        }
        let image = match target {
            Target::Sm(_) => program.read(self.functions.cubin_size, self.functions.cubin)?,
            Target::Compute(_) => program.read(self.functions.ptx_size, self.functions.ptx)?,
        };
        Ok(Compiled { image, log })
    }
}

/// A unit given to the compiler.
struct Source<'a> {
    functions: &'a Functions,
    handle: Program,
}

impl Source<'_> {
    fn new(functions: &Functions) -> Result<Source<'_>, ImageError> {
        let names = c_strings(SOURCES.iter().map(|(name, _)| name.to_string()));
        let texts = c_strings(SOURCES.iter().map(|(_, text)| text.to_string()));
        let unit = c_strings([UNIT.to_string(), "kernels.cu".to_string()]);
        let mut handle = ptr::null_mut();
        // SAFETY: all strings end with a zero and outlive the call, which copies them.
        let status = unsafe {
            let (texts, count) = (pointers(&texts), names.len() as c_int);
            let names = pointers(&names);
            (functions.create)(
                &mut handle,
                unit[0].as_ptr(),
                unit[1].as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        check("taking the sources", status)?;
        Ok(Source { functions, handle })
    }

    /// What the two functions say of this program: a number of bytes, and as many bytes.
    fn read(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        fill: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, ImageError> {
        let mut len = 0;
        // SAFETY: the program is one of this library, which says how many bytes it writes.
        unsafe {
            check("asking for a size", size(self.handle, &mut len))?;
            let mut bytes = vec![0; len];
            check("giving its result", fill(self.handle, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        // SAFETY: nothing uses the program any more.
        unsafe { (self.functions.destroy)(&mut self.handle) };
    }
}

fn check(what: &'static str, status: c_int) -> Result<(), ImageError> {
    if status == 0 { Ok(()) } else { Err(ImageError::Call { what, status }) }
}

fn c_strings(strings: impl IntoIterator<Item = String>) -> Vec<CString> {
    strings.into_iter().map(|s| CString::new(s).expect("sources and options have no zeros")).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).collect()
}

/// Folders of installed toolkits which the loader may not know, newest first.
fn folders() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let beside = fs::read_dir("/usr/local").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_toolkit = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("cuda-"));
    let mut versions: Vec<PathBuf> = beside.filter(is_toolkit).collect();
    versions.sort_by_key(|p| p.file_name().and_then(|n| parse_version(n.to_str()?.strip_prefix("cuda-")?)));
    versions.reverse();
    let toolkits = named.chain([PathBuf::from("/usr/local/cuda")]).chain(versions);
    toolkits.flat_map(|t| [t.join("lib64"), t.join("lib")]).filter(|f| f.is_dir()).collect()
}

/// `12.6`, for sorting.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The second library, if it lies where `library` does.
fn builtins_beside(library: &Path) -> Vec<PathBuf> {
    let Some(folder) = library.parent().filter(|f| !f.as_os_str().is_empty()) else { return vec![] };
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(BUILTINS))).collect()
}
