//! The HTTP server: one model, the dialects of others, and states with names.
//!
//! ```text
//! HTTP ─ auth ─ wire (a dialect) ─► Request ─ prepare ─► Job ─ worker ─► scheduler
//!                    ▲                                                      │ tokens
//!                    └───────────── Piece ◄─────────── guide ◄──────────────┘
//! ```
//!
//! A dialect in `wire` translates a body to a [`request::Request`] and the pieces of the answer back. What is between is
//! the same for all: `prepare` makes tokens of it or refuses it, the `worker` owns everything that
//! computes, and a `guide` reads each answer token by token. Async code never computes and the thread that computes
//! never waits. This crate doesn't decide about tokens: sampling, batching and states are the engine's.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod admin;
pub mod answer;
pub mod app;
pub mod auth;
pub mod error;
mod explain;
mod guide;
pub mod metrics;
pub mod model;
mod page;
pub mod personas;
mod prepare;
pub mod request;
pub mod rounds;
pub mod router;
pub mod server;
pub mod states;
mod wire;
mod worker;

pub use app::{App, Settings};
pub use auth::Keys;
pub use model::{ModelFacts, Text, template_identity};
pub use personas::Personas;
pub use router::{Options, router};
pub use server::{ServerError, bind, run, serve};
pub use states::Store;
