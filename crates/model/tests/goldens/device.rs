//! The exact files on a device: an emulated one, or with `TANGELO_TEST_GPU` the machine's.

use crate::common::{Cases, cx, fixtures, goldens, logits, max_error};
use tangelo_formats::Checkpoint;
use tangelo_model::Model;
use tangelo_ops::{Gpu, Place};

/// As on the host.
const LOGITS: f64 = 2e-4;
/// Tokens of the longest prompt: an emulated device takes its time.
const TOKENS_MAX: usize = 64;

#[test]
fn logits_at_every_prompt_length_on_a_device() {
    if std::env::var_os("TANGELO_TEST_GPU").is_none()
        && let Err(reason) = tangelo_emulator::load()
    {
        eprintln!("skipped: {reason}");
        return;
    }
    let cx = cx().with_gpu(Gpu::open(0).expect("a device"));
    for (fixture, file) in [
        ("tiny", "tiny"),
        ("tiny", "tiny/f32"),
        ("tiny", "tiny/gguf/bf16.gguf"),
        ("odd", "odd"),
        ("moe", "moe"),
        ("moe_latent", "moe_latent/f32"),
    ] {
        let checkpoint = Checkpoint::open(&fixtures().join(file)).expect("a fixture");
        let model = Model::load(&cx, &checkpoint).expect("it fits its configuration");
        let (cases, goldens) = (Cases::load(fixture), goldens(&format!("{fixture}/goldens_f64.safetensors")));
        for (len, prompt) in cases.prompts().into_iter().filter(|(len, _)| *len <= TOKENS_MAX) {
            let golden = &goldens[&format!("logits.{len}")];
            let got = cx.mat_to(Place::Host, logits(&model, &cx, &prompt).0);
            for (at, row) in cases.rows(len).into_iter().enumerate() {
                let error = max_error(got.row(row), golden.row(at));
                assert!(error <= LOGITS, "{file}, {len} tokens, position {row}: off by {error}");
            }
        }
    }
}
