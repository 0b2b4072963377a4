//! Configurations: published sizes, both vocabularies, and everything that must be refused.

use tangelo_formats::config::shapes;
use tangelo_formats::{BlockKind, Config};

#[test]
fn parameter_counts_are_the_published_ones() {
    for (name, parameters) in [
        ("nemotron-3-nano-4b", 3_973_556_832),
        ("nemotron-nano-9b-v2", 8_888_227_328),
        ("nemotron-nano-12b-v2", 12_310_001_152),
        ("nemotron-h-8b", 8_100_852_736),
        ("nemotron-h-4b", 4_489_223_040),
    ] {
        assert_eq!(shapes::named(name).unwrap().num_parameters(), parameters, "{name}");
    }
    // "31.6 B" on its card.
    let moe = shapes::named("nemotron-3-nano-30b-a3b").unwrap().num_parameters();
    assert_eq!((moe + 50_000_000) / 100_000_000, 316, "{moe}");
}

#[test]
fn the_4b_is_as_published() {
    let c = shapes::named("nemotron-3-nano-4b").unwrap();
    let layers = |kind| -> Vec<usize> {
        c.blocks.iter().enumerate().filter(|(_, b)| **b == kind).map(|(i, _)| i).collect()
    };
    assert_eq!(layers(BlockKind::Attention), [12, 17, 24, 32]);
    assert_eq!((layers(BlockKind::Mamba).len(), layers(BlockKind::Mlp).len()), (21, 17));
    assert_eq!(c.tensors().len(), 263);
    assert_eq!((c.mamba.inner_size(), c.mamba.conv_size(), c.mamba.in_proj_size()), (7680, 9728, 17504));
    assert_eq!(shapes::named("nemotron-5-tera"), None);
}

#[test]
fn every_shape_passes_the_checks_and_survives_json() {
    for name in shapes::NAMES {
        let config = shapes::named(name).unwrap();
        config.check().unwrap();
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config, "{name}");
    }
    let mut odd = shapes::named("nemotron-h-4b").unwrap();
    odd.mamba.time_step_limit = (0.02, f32::INFINITY);
    odd.norm_eps = 1e-3;
    odd.eos_token_ids = vec![2, 11];
    odd.pad_token_id = None;
    odd.tie_word_embeddings = true;
    assert_eq!(Config::from_json(&odd.to_json()).unwrap(), odd);
}

/// A small valid configuration, to be damaged.
const GOOD: &str = r#"{"model_type": "nemotron_h", "hybrid_override_pattern": "M-*E", "num_hidden_layers": 4,
"hidden_size": 64, "vocab_size": 512, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
"head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "conv_kernel": 4,
"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "n_group": 2, "topk_group": 1,
"moe_shared_expert_intermediate_size": 72, "time_step_limit": [0.0, Infinity], "eos_token_id": 2}"#;

fn with(from: &str, to: &str) -> Result<Config, String> {
    assert!(GOOD.contains(from), "{from}");
    Config::from_json(&GOOD.replace(from, to)).map_err(|e| e.to_string())
}

#[test]
fn spellings_that_are_accepted() {
    let good = Config::from_json(GOOD).unwrap();
    let pattern = r#""hybrid_override_pattern": "M-*E""#;
    for same in [
        with(r#""num_hidden_layers": 4,"#, ""),
        with(pattern, r#""layers_block_type": ["mamba", "mlp", "attention", "moe"]"#),
        with(pattern, r#""layers_block_type": ["linear_attention", "mlp", "full_attention", "moe"]"#),
        with(
            pattern,
            r#""hybrid_override_pattern": "M-*E", "layers_block_type": ["mamba", "mlp", "attention", "moe"]"#,
        ),
        with("head_dim\": 16", "attention_head_dim\": 16"),
        with("Infinity", r#"{"__float__": "Infinity"}"#),
        with(r#""time_step_limit": [0.0, Infinity],"#, ""),
        with(r#""time_step_limit": [0.0, Infinity],"#, r#""time_step_limit": null,"#),
        with(r#""eos_token_id": 2"#, r#""eos_token_id": [2]"#),
        with(
            r#""eos_token_id": 2"#,
            r#""eos_token_id": 2, "attention_bias": true, "expand": 7, "chunk_size": 0"#,
        ),
        with(
            r#""eos_token_id": 2"#,
            r#""eos_token_id": 2, "layer_norm_epsilon": 1e-05, "rms_norm_eps": 1e-3"#,
        ),
        with(r#""model_type": "nemotron_h""#, r#""architectures": ["NemotronHForCausalLM"]"#),
    ] {
        assert_eq!(same.unwrap(), good);
    }
    assert_eq!(with(r#""eos_token_id": 2"#, r#""rms_norm_eps": 0.001"#).unwrap().norm_eps, 0.001);
    assert!(with(r#""eos_token_id": 2"#, r#""eos_token_id": null"#).unwrap().eos_token_ids.is_empty());
}

/// What is replaced in the good configuration, by what, and what the error must say.
const REFUSED: &[(&str, &str, &str)] = &[
    ("nemotron_h", "llama", "unsupported architecture `llama`"),
    (r#""model_type": "nemotron_h","#, "", "none named in `model_type`"),
    ("M-*E\"", "M-*X\"", "`hybrid_override_pattern` has `X`"),
    ("\"M-*E\"", "7", "`hybrid_override_pattern` should be a string, found 7"),
    ("\"M-*E\"", "null", "`layers_block_type`: one of them must list the layers"),
    ("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5", "is 5, but the layer pattern has 4 layers"),
    ("\"hidden_size\": 64,", "", "`hidden_size` is missing"),
    ("\"hidden_size\": 64", "\"hidden_size\": 0", "`hidden_size` must be between 1 and"),
    ("\"hidden_size\": 64", "\"hidden_size\": -1", "should be a non-negative whole number, found -1"),
    ("\"hidden_size\": 64", "\"hidden_size\": 6.5", "should be a non-negative whole number, found 6.5"),
    ("\"hidden_size\": 64", "\"hidden_size\": 1e99", "should be a non-negative whole number"),
    ("\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615", "must be between 1 and"),
    (
        "\"hidden_size\": 64",
        "\"hidden_size\": 184467440737095516159",
        "should be a non-negative whole number",
    ),
    ("\"vocab_size\": 512", "\"vocab_size\": \"512\"", "`vocab_size` should be a non-negative whole number"),
    ("\"n_groups\": 2", "\"n_groups\": 3", "`mamba_num_heads` is 8, not a multiple of `n_groups`, 3"),
    ("\"n_groups\": 2", "\"n_groups\": 0", "`n_groups` must be between 1 and"),
    ("heads\": 2", "heads\": 3", "`num_attention_heads` is 4, not a multiple of `num_key_value_heads`, 3"),
    ("\"mamba_head_dim\": 8", "\"mamba_head_dim\": 16000000", "above the limit"),
    ("\"conv_kernel\": 4", "\"conv_kernel\": 65", "`conv_kernel` must be between 1 and 64, found 65"),
    ("[0.0, Infinity]", "[0.5, 0.1]", "`time_step_limit` must be a range of non-negative numbers"),
    ("[0.0, Infinity]", "[0.0, NaN]", "`time_step_limit` must be a range"),
    ("[0.0, Infinity]", "[0.0]", "should be a list of two numbers, found 1"),
    ("[0.0, Infinity]", "{}", "should be a list of two numbers"),
    ("\"n_routed_experts\": 8,", "", "`n_routed_experts` is missing"),
    (
        "\"num_experts_per_tok\": 3",
        "\"num_experts_per_tok\": 9",
        "`num_experts_per_tok` must be between 1 and 8",
    ),
    ("\"num_experts_per_tok\": 3", "\"num_experts_per_tok\": 5", "only 4 experts are eligible"),
    ("\"n_group\": 2", "\"n_group\": 3", "`n_routed_experts` is 8, not a multiple of `n_group`, 3"),
    ("\"n_group\": 2", "\"n_group\": 8", "one expert per group"),
    ("\"topk_group\": 1", "\"topk_group\": 3", "`topk_group` must be between 1 and 2"),
    ("\"eos_token_id\": 2", "\"eos_token_id\": \"</s>\"", "`eos_token_id` should be a token id or a list"),
    ("\"eos_token_id\": 2", "\"mlp_hidden_act\": \"gelu\"", "`mlp_hidden_act` is `gelu`"),
    ("\"eos_token_id\": 2", "\"layer_norm_epsilon\": -1.0", "`layer_norm_epsilon` must be a positive number"),
    ("\"eos_token_id\": 2", "\"layers_block_type\": [\"mamba\"]", "disagrees with `hybrid_override_pattern`"),
];

#[test]
fn what_is_refused_and_why() {
    for (from, to, why) in REFUSED {
        let error = with(from, to).expect_err(to);
        assert!(error.contains(why), "{to}: {error}");
    }
    for (text, why) in [
        ("", "config.json is not valid JSON"),
        ("[]", "should be an object of keys and values"),
        ("{\"model_type\": 3}", "`model_type` should be a string, found 3"),
    ] {
        let error = Config::from_json(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_list_of_millions_of_experts_is_refused_before_it_is_written_down() {
    let layers = "E".repeat(4000);
    let text = GOOD
        .replace("M-*E", &layers)
        .replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 4000")
        .replace("\"n_routed_experts\": 8", "\"n_routed_experts\": 60000");
    let error = Config::from_json(&text).unwrap_err().to_string();
    assert!(error.contains("480000000, above the limit"), "{error}");
}
