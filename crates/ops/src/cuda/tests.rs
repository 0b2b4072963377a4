//! What only shows when launches are recorded and memory is short.

use super::{Grid, launch};
use crate::testing::on_gpu;

#[test]
fn what_is_recorded_runs_before_its_memory_is_given_back() {
    on_gpu(|cx, _| {
        let gpu = cx.gpu().expect("a context with a GPU");
        let (kept, len) = (gpu.buffer(4096), 1024usize);
        kept.write(0, &vec![1.0f32; len]);
        gpu.record(|| {
            // Read by a launch that is only written down, and free before it runs.
            let source = gpu.buffer(4096);
            launch!(gpu, "logits_copy", Grid::new(1, 256), &kept, &source, len);
            launch!(gpu, "logits_copy", Grid::new(1, 256), &source, &kept, len);
            drop(source);
            // No room but that of the free buffer, which is too small.
            gpu.set_budget(gpu.reserved_bytes().0 + 4096);
            drop(gpu.try_buffer(8192).expect("the free buffer makes room"));
            gpu.set_budget(0);
        });
        let mut found = vec![0.0f32; len];
        kept.read(0, &mut found);
        assert_eq!(found, vec![1.0; len]);
    });
}

#[test]
fn more_than_the_budget_is_refused_and_breaks_nothing() {
    on_gpu(|cx, _| {
        let gpu = cx.gpu().expect("a context with a GPU");
        gpu.set_budget(gpu.reserved_bytes().0 + 4096);
        let error = gpu.try_buffer(1 << 20).expect_err("a megabyte more").to_string();
        assert!(error.contains("1048576 bytes"), "{error}");
        drop(gpu.try_buffer(4096).expect("within the budget"));
        gpu.set_budget(0);
        gpu.check().expect("a refusal is no failure");
    });
}
