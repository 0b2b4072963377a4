//! Launching kernels by name.

use super::{Gpu, c_string, lock};
use crate::device::{Mat, Vector};
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

/// Most bytes of shared memory that a kernel gets without asking.
const SHARED_DEFAULT: u32 = 48 << 10;
/// Most arguments of a kernel.
pub(super) const ARGS_MAX: usize = 24;

/// How many threads of which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads per block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Grid {
    /// `blocks` blocks of `threads` threads.
    pub(crate) fn new(blocks: usize, threads: u32) -> Grid {
        Grid::of([blocks, 1, 1], threads)
    }

    /// A grid of blocks in up to three dimensions.
    pub(crate) fn of(blocks: [usize; 3], threads: u32) -> Grid {
        Grid { blocks: blocks.map(|n| u32::try_from(n).expect("fewer than 2^32 blocks")), threads, shared: 0 }
    }

    /// With `bytes` of dynamic shared memory.
    pub(crate) fn with_shared(self, bytes: usize) -> Grid {
        Grid { shared: u32::try_from(bytes).expect("kilobytes"), ..self }
    }

    fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// An argument of a kernel: the value of a parameter, or words of a structure that is passed by value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    /// An address, or any number of 64 bits.
    U64(u64),
    /// A number of 32 bits.
    U32(u32),
    /// A float.
    F32(f32),
    /// A structure of whole 64-bit words.
    Words(&'a [u64]),
}

impl From<u64> for Arg<'_> {
    fn from(value: u64) -> Self {
        Arg::U64(value)
    }
}

impl From<u32> for Arg<'_> {
    fn from(value: u32) -> Self {
        Arg::U32(value)
    }
}

/// Sizes and indices; kernels take them as 32-bit numbers.
impl From<usize> for Arg<'_> {
    fn from(value: usize) -> Self {
        Arg::U32(u32::try_from(value).expect("sizes of matrices are below 2^32"))
    }
}

impl From<f32> for Arg<'_> {
    fn from(value: f32) -> Self {
        Arg::F32(value)
    }
}

impl From<&super::Buffer> for Arg<'_> {
    fn from(buffer: &super::Buffer) -> Self {
        Arg::U64(buffer.address())
    }
}

/// The address of the first element.
///
/// # Panics
/// If it is not on a device.
impl From<&Mat> for Arg<'_> {
    fn from(mat: &Mat) -> Self {
        Arg::U64(mat.buffer().expect("operands of a kernel are on the device").address())
    }
}

/// The address of the first element.
///
/// # Panics
/// If it is not on a device.
impl From<&Vector> for Arg<'_> {
    fn from(vector: &Vector) -> Self {
        Arg::U64(vector.buffer().expect("operands of a kernel are on the device").address())
    }
}

/// `launch!(gpu, "kernel", grid, a, b, …)`: launches a kernel with arguments of any type that [`Arg`] is made from.
macro_rules! launch {
    ($gpu:expr, $name:expr, $grid:expr, $($arg:expr),* $(,)?) => {
        $gpu.launch($name, $grid, &[$($crate::cuda::Arg::from($arg)),*])
    };
}
pub(crate) use launch;

/// A kernel, how often, and with what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Launch {
    pub function: Function,
    pub grid: Grid,
    /// All arguments, each beginning at a word of its own.
    pub words: Vec<u64>,
    /// Words at which the arguments begin.
    pub starts: [u8; ARGS_MAX],
    pub num_args: u8,
}

/// The driver's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function(pub sys::CUfunction);

// SAFETY: a handle is a number to the driver.
unsafe impl Send for Function {}

impl Launch {
    fn new(function: Function, grid: Grid, args: &[Arg<'_>]) -> Launch {
        let mut launch = Launch {
            function,
            grid,
            words: Vec::with_capacity(args.len()),
            starts: [0; ARGS_MAX],
            num_args: 0,
        };
        for arg in args {
            launch.starts[usize::from(launch.num_args)] = launch.words.len() as u8;
            launch.num_args += 1;
            match *arg {
                Arg::U64(value) => launch.words.push(value),
                Arg::U32(value) => launch.words.push(u64::from(value)),
                Arg::F32(value) => launch.words.push(u64::from(value.to_bits())),
                Arg::Words(words) => launch.words.extend_from_slice(words),
            }
        }
        assert!(launch.words.len() <= usize::from(u8::MAX), "at most 2 KB of arguments");
        launch
    }

    /// The addresses of the arguments, as the driver wants them; good as long as the launch stays where it is.
    pub(super) fn pointers(&mut self) -> [*mut c_void; ARGS_MAX] {
        let mut pointers = [std::ptr::null_mut(); ARGS_MAX];
        for (pointer, &start) in pointers.iter_mut().zip(&self.starts[..usize::from(self.num_args)]) {
            *pointer = self.words[usize::from(start)..].as_mut_ptr().cast();
        }
        pointers
    }

    /// Puts it into the stream.
    ///
    /// # Safety
    /// The context must be current, and the arguments what the kernel takes.
    pub(super) unsafe fn run(&mut self, stream: sys::CUstream) -> Result<(), DriverError> {
        let Grid { blocks: [x, y, z], threads, shared } = self.grid;
        // SAFETY: the pointers are those of this launch's words, which the driver copies; the caller vouches for the rest.
        unsafe {
            driver::launch_kernel(
                self.function.0,
                (x, y, z),
                (threads, 1, 1),
                shared,
                stream,
                &mut self.pointers(),
            )
        }
    }
}

/// The kernels of the image, looked up once.
pub(super) struct Functions {
    module: sys::CUmodule,
    /// With the dynamic shared memory that has been asked for.
    known: Mutex<HashMap<&'static str, (Function, u32)>>,
}

impl Functions {
    pub(super) fn new(module: sys::CUmodule) -> Functions {
        Functions { module, known: Mutex::default() }
    }

    pub(super) fn module(&self) -> sys::CUmodule {
        self.module
    }

    /// # Safety
    /// The context must be current.
    unsafe fn get(&self, name: &'static str, shared: u32) -> Result<Function, DriverError> {
        let mut known = lock(&self.known);
        let (function, most) = match known.get(name) {
            Some(&known) => known,
            // SAFETY: the module is loaded; the caller vouches for the context.
            None => unsafe {
                (Function(driver::module::get_function(self.module, c_string(name))?), SHARED_DEFAULT)
            },
        };
        if shared > most {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: as above.
            unsafe { driver::function::set_function_attribute(function.0, attribute, shared as i32)? };
        }
        known.insert(name, (function, most.max(shared)));
        Ok(function)
    }
}

impl Gpu {
    /// Runs a kernel after everything asked for so far.
    pub(crate) fn launch(&self, name: &'static str, grid: Grid, args: &[Arg<'_>]) {
        if grid.is_empty() {
            return;
        }
        // SAFETY: `attempt` has made the context current. Callers pass what their kernel takes: the two lie side by side
        // in the folder of an operation, and its tests launch it.
        let run = || unsafe {
            let mut launch = Launch::new(self.0.functions.get(name, grid.shared)?, grid, args);
            match lock(&self.0.recorder).take(launch) {
                None => Ok(()),
                Some(direct) => {
                    launch = direct;
                    launch.run(self.0.stream)
                }
            }
        };
        self.attempt(name, run);
    }
}
