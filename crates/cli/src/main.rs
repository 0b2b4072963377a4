//! The `tangelo` program.
fn main() {}
