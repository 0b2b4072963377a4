//! Block-quantised files against float64 runs on the exactly dequantised weights: only the 8-bit rounding of
//! activations may differ.

use crate::common::{Cases, cx, divergence, goldens, load, logits};

/// Mean KL divergence allowed for 8-bit activations (`fixtures/README.md`).
const MEAN_KL: f64 = 5e-3;

#[test]
fn divergence_from_exact_dequantisation_is_small() {
    let cx = cx();
    for dtype in ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"] {
        let model = load(&format!("quantised/tiny-{dtype}.gguf"));
        let goldens = goldens(&format!("quantised/tiny-{dtype}.goldens.safetensors"));
        let cases = Cases::load("tiny");
        for (name, ids) in [("logits.50", cases.prompt(50)), ("text.logits", cases.text_ids())] {
            let golden = &goldens[name];
            let (got, _) = logits(&model, &cx, &ids);
            let kl = |t: usize| divergence(golden.row(t), got.row(t));
            let mean = (0..ids.len()).map(kl).sum::<f64>() / ids.len() as f64;
            println!("{dtype} {name}: mean KL {mean:.2e}");
            assert!(mean <= MEAN_KL, "{dtype} {name}: mean KL {mean}");
        }
    }
}
