//! The crate against servers of its own making: the protocol written by hand, over pipes and over HTTP.

mod calls;
mod config;
mod fake;
mod http;
mod stdio;
