//! The bar on standard error while something takes long; nothing where standard error is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as MiB and GiB.
    Bytes,
    /// Tokens.
    Tokens,
    /// Things.
    Items,
}

/// A bar for `total` units of work called `name`.
pub fn bar(name: &str, total: u64, unit: Unit) -> ProgressBar {
    let template = match unit {
        Unit::Bytes => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        Unit::Tokens => "{msg} [{bar:30}] {pos}/{len} tokens {per_sec} {eta}",
        Unit::Items => "{msg} [{bar:30}] {pos}/{len} {eta}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(name.to_string())
}
