//! GGUF: one file with typed metadata, a tensor directory and the tensors.
//!
//! Layout of versions 2 and 3, all little endian (specification: `docs/gguf.md` of ggml):
//!
//! ```text
//! magic "GGUF" | version u32 | number of tensors u64 | number of key-value pairs u64
//! per pair:   key string | value type u32 | value
//! per tensor: name string | number of dimensions u32 | dimensions u64, fastest first | type u32 | offset u64
//! padding to `general.alignment` (32 if absent); tensor data, each tensor at its offset from here
//! ```
//!
//! A string is a u64 length and that many bytes of UTF-8. [`reader::parse`] reads all of it except the tensor
//! data; [`writer::Writer`] writes it as a stream; [`names`] is the table of tensor names and [`arch`] the
//! translation between metadata and [`crate::Config`].

pub mod arch;
pub mod metadata;
pub mod names;
pub mod reader;
pub mod types;
pub mod value;
pub mod writer;

pub use metadata::Metadata;
pub use reader::{Gguf, TensorInfo, parse};
pub use value::{Array, Strings, Value};
pub use writer::{TensorPlan, Writer};

/// First four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data when the file does not say.
pub const ALIGNMENT_DEFAULT: usize = 32;
/// Key of the alignment.
pub const ALIGNMENT_KEY: &str = "general.alignment";
