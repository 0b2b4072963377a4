//! Panics of a library as errors: the reader of parquet's rows panics where the levels of a damaged file do not fit its schema.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `f` returns, or what it panics with. Nothing of a panic is printed. What `f` borrows must not be used after one.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                before(info);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    IS_CAUGHT.set(false);
    result.map_err(|cause| message(&*cause))
}

fn message(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_returned_and_panics_are_errors() {
        assert_eq!(caught(|| 5), Ok(5));
        let rows = [1, 2];
        let at = std::hint::black_box(7);
        assert_eq!(caught(|| rows[at]), Err("index out of bounds: the len is 2 but the index is 7".into()));
        assert_eq!(caught(|| panic!("no")), Err::<(), _>("no".into()));
    }
}
