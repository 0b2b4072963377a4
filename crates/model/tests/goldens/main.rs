//! Agreement with other implementations, and with the model itself on other weights and caches.
//!
//! One program, because each would be linked with all dependencies again.

mod common;
mod device;
mod exact;
mod fp8;
mod kv;
mod quantised;
