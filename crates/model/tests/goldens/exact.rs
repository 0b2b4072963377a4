//! Agreement with Hugging Face transformers in float64 (`fixtures/README.md`): logits, log-probabilities,
//! residual streams, states and greedy continuations.

use crate::common::{Cases, cx, goldens, load, log_probability, logits, max_error};
use tangelo_model::{LayerState, LogitRows, Model, Observed, Segment};
use tangelo_ops::Cx;
use tangelo_ops::attention::Elements;

/// Every file that holds the f32 values of a fixture, exactly.
const EXACT_FILES: [(&str, &[&str]); 4] = [
    ("tiny", &["tiny", "tiny/f32", "tiny/gguf/f32.gguf", "tiny/gguf/bf16.gguf"]),
    ("odd", &["odd", "odd/f32"]),
    ("moe", &["moe", "moe/f32", "moe/gguf/f32.gguf", "moe/gguf/bf16.gguf"]),
    (
        "moe_latent",
        &["moe_latent", "moe_latent/f32", "moe_latent/gguf/f32.gguf", "moe_latent/gguf/bf16.gguf"],
    ),
];

/// An f32 engine is this far from float64 at most; the smallest structural mistake moves logits by 10 times more.
const LOGITS: f64 = 2e-4;
const LOG_PROBABILITY: f64 = 1e-4;
const RESIDUAL: f64 = 1e-4;
const STATE: f64 = 1e-4;

fn for_every_file(check: impl Fn(&str, &str, &Model, &Cx)) {
    let cx = cx();
    for (fixture, files) in EXACT_FILES {
        for file in files {
            check(fixture, file, &load(file), &cx);
        }
    }
}

#[test]
fn logits_at_every_prompt_length() {
    for_every_file(|fixture, file, model, cx| {
        let (cases, goldens) = (Cases::load(fixture), goldens(&format!("{fixture}/goldens_f64.safetensors")));
        for (len, prompt) in cases.prompts() {
            let golden = &goldens[&format!("logits.{len}")];
            let (got, _) = logits(model, cx, &prompt);
            for (at, row) in cases.rows(len).into_iter().enumerate() {
                let error = max_error(got.row(row), golden.row(at));
                assert!(error <= LOGITS, "{file}, {len} tokens, position {row}: off by {error}");
            }
        }
    });
}

#[test]
fn log_probabilities_of_a_text() {
    for_every_file(|fixture, file, model, cx| {
        let golden = &goldens(&format!("{fixture}/goldens_f64.safetensors"))["text.logprobs"];
        let ids = Cases::load(fixture).text_ids();
        let (got, _) = logits(model, cx, &ids);
        for t in 0..ids.len() - 1 {
            let error = (log_probability(got.row(t), ids[t + 1]) - golden.data[t]).abs();
            assert!(error <= LOG_PROBABILITY, "{file}, position {t}: off by {error}");
        }
    });
}

#[test]
fn residual_stream_after_every_block() {
    for_every_file(|fixture, file, model, cx| {
        let wide = goldens(&format!("{fixture}/goldens_f64.safetensors"));
        let single = goldens(&format!("{fixture}/goldens_f32.safetensors"));
        let prompt = Cases::load(fixture).prompt(50);
        let mut state = model.new_state();
        let segment = Segment { tokens: &prompt, state: &mut state, logits: LogitRows::All };
        let mut seen = 0;
        let mut observe = |at: Observed, activations: &tangelo_ops::Mat| {
            // Mixer outputs are kept by the float32 run only, whose own error is 1e-5.
            let golden = match at {
                Observed::Embeddings => &wide["trace50.embed"],
                Observed::Mixer(i) => &single[&format!("trace50.mixer{i}")],
                Observed::Block(i) => &wide[&format!("trace50.block{i}")],
                Observed::Norm => &wide["trace50.norm_f"],
            };
            let error = max_error(activations.data(), &golden.data);
            assert!(error <= RESIDUAL, "{file}, {at:?}: off by {error}");
            seen += 1;
        };
        model.forward_observed(cx, &mut [segment], &mut observe).expect("ids are in range");
        assert_eq!(seen, 2 + 2 * model.config().blocks.len());
    });
}

#[test]
fn states_after_3_and_50_tokens() {
    for_every_file(|fixture, file, model, cx| {
        let (cases, goldens) = (Cases::load(fixture), goldens(&format!("{fixture}/goldens_f64.safetensors")));
        for len in [3, 50] {
            let (_, state) = logits(model, cx, &cases.prompt(len));
            assert_eq!(state.position(), len);
            for (i, layer) in state.layers().iter().enumerate() {
                let golden = |part: &str| &goldens[&format!("state{len}.{part}{i}")];
                let what = format!("{file}, {len} tokens, block {i}");
                match layer {
                    LayerState::Mamba(mamba) => {
                        let (channels, k) = (golden("conv").shape[0], golden("conv").shape[1]);
                        // The golden window is channel-major and one input longer than what must be kept.
                        let kept = |tap: usize, c: usize| golden("conv").data[c * k + tap];
                        let want: Vec<f64> =
                            (1..k).flat_map(|tap| (0..channels).map(move |c| kept(tap, c))).collect();
                        assert!(max_error(&mamba.conv[..], &want) <= STATE, "{what}: convolution");
                        assert!(
                            max_error(&mamba.ssm[..], &golden("ssm").data) <= STATE,
                            "{what}: recurrence"
                        );
                    }
                    // llama.cpp's converter permutes rows of q and k alike, so only scores can be compared.
                    LayerState::Attention(_) if file.ends_with(".gguf") => {}
                    LayerState::Attention(cache) => {
                        let (Elements::F32(keys), Elements::F32(values)) = cache.elements() else {
                            panic!("{what}: the default is f32");
                        };
                        let want = |part| by_position(&golden(part).data, &golden(part).shape);
                        assert!(max_error(&keys, &want("k")) <= STATE, "{what}: keys");
                        assert!(max_error(&values, &want("v")) <= STATE, "{what}: values");
                    }
                    LayerState::Stateless => {}
                }
            }
        }
    });
}

/// (K, l, D) → (l, K, D).
fn by_position(data: &[f64], shape: &[usize]) -> Vec<f64> {
    let [heads, l, d] = shape.try_into().expect("three dimensions");
    let at = |t: usize, head: usize, i: usize| data[(head * l + t) * d + i];
    (0..l)
        .flat_map(|t| (0..heads).flat_map(move |head| (0..d).map(move |i| (t, head, i))))
        .map(|(t, head, i)| at(t, head, i))
        .collect()
}

#[test]
fn greedy_continuations() {
    for_every_file(|fixture, file, model, cx| {
        for (prompt, want) in Cases::load(fixture).greedy() {
            let mut state = model.new_state();
            let (mut next, mut got) = (prompt, Vec::<u32>::new());
            for _ in 0..want.len() {
                let segment = Segment { tokens: &next, state: &mut state, logits: LogitRows::Last };
                let logits = model.forward(cx, &mut [segment]).expect("ids are in range");
                let best = (0..logits.cols()).max_by(|&a, &b| logits.row(0)[a].total_cmp(&logits.row(0)[b]));
                next = vec![best.expect("a vocabulary") as u32];
                got.extend(&next);
            }
            assert_eq!(got, want, "{file}");
        }
    });
}
