//! The rules of the house as code. A rule that is only written down is forgotten; each rule here is a function
//! from the tree of files to a list of problems, and `cargo test -p xtask` fails while the list is not empty.
//!
//! Nothing here compiles or runs the project (the program's task `cuda` does): the rules see text. Rust files are seen through
//! [`source::Source`], which knows comments and strings apart from code.

#![forbid(unsafe_code)]

use std::path::Path;

pub mod lines;
pub mod manifest;
pub mod ptxas;
pub mod rules;
pub mod source;
pub mod tree;

/// The repository's root: the folder above this crate.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in a folder of the repository")
}
