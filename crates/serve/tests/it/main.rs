//! The server from outside: a real one on a port of its own, spoken to over TCP.
//!
//! One program, because each would be linked with all dependencies again.

mod answers;
mod calls;
mod client;
mod dialects;
mod limits;
mod load;
mod named_states;
mod personas;
mod server;
mod tools;
mod turns;
/// Shared with the tests of constraints.
#[path = "../../../engine/tests/it/validator.rs"]
mod validator;
