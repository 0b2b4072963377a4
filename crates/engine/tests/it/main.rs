//! Sequences and their states, tested from outside: laws by equality of bits, generation, files of states.
//!
//! One program, because each would be linked with all dependencies again. `allocations.rs` is another one: it counts what
//! its whole process allocates.

#[path = "../common/mod.rs"]
mod common;
mod constraint;
mod device;
mod generation;
mod laws;
mod scheduler;
mod state_file;
mod tree;
mod validator;
