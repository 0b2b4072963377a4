//! `tangelo convert`: the same file that a converter in Python makes, the same tensors that `synth` encodes, refusals.

use std::fs;

use tangelo_formats::{Checkpoint, gguf};

use crate::program::{arg, fixture, refused, run, scratch};
use crate::synth::compare_gguf;

#[test]
fn folders_become_the_files_of_a_converter() {
    let folder = scratch("convert");
    for name in ["tiny", "moe", "moe_latent"] {
        for quant in ["f32", "bf16"] {
            let out = folder.join(format!("{name}-{quant}.gguf"));
            run(&["convert", arg(&fixture(name)), "--out", arg(&out), "--quant", quant]);
            let (ours, theirs) = (fs::read(&out), fs::read(fixture(name).join(format!("gguf/{quant}.gguf"))));
            compare_gguf(&ours.expect("our file"), &theirs.expect("their file"), &format!("{name} {quant}"));
        }
    }
}

#[test]
fn quantised_tensors_are_those_of_synth_and_the_companions_come_along() {
    let folder = scratch("convert-quantised");
    let (config, tokenizer) = (fixture("tiny/config.json"), fixture("tiny"));
    for quant in ["q8_0", "q5_0", "q4_k_m"] {
        let (converted, made) =
            (folder.join(format!("c-{quant}.gguf")), folder.join(format!("s-{quant}.gguf")));
        run(&["convert", arg(&tokenizer), "--out", arg(&converted), "--quant", quant, "--name", "tiny"]);
        let synth = ["synth", "--config", arg(&config), "--out", arg(&made), "--quant", quant];
        run(&[&synth[..], &["--tokenizer", arg(&tokenizer)]].concat());
        let (a, b) = (fs::read(&converted).expect("a file"), fs::read(&made).expect("a file"));
        let (of_a, of_b) = (gguf::parse(&a).expect("GGUF"), gguf::parse(&b).expect("GGUF"));
        for (x, y) in of_a.tensors.iter().zip(&of_b.tensors) {
            assert_eq!((&x.name, x.dtype), (&y.name, y.dtype));
            assert!(a[x.range.clone()] == b[y.range.clone()], "{quant} {}", x.name);
        }
        for (key, value) in of_b.metadata.iter() {
            assert_eq!(of_a.metadata.get(key), Some(value), "{key}");
        }
        let opened = Checkpoint::open(&converted).expect("a model");
        let folder = Checkpoint::open(&tokenizer).expect("a model");
        assert_eq!(opened.generation().overrides(), folder.generation().overrides());
        assert_eq!(opened.chat_template().expect("one"), folder.chat_template().expect("one"));
        assert_eq!(opened.stop_token_ids(), folder.stop_token_ids());
    }
}

#[test]
fn what_has_been_rounded_is_refused() {
    let out = scratch("convert-refused").join("x.gguf");
    let file = fixture("quantised/tiny-Q5_0.gguf");
    refused(&["convert", arg(&file), "--out", arg(&out)], 1, "not a folder of safetensors");
    let tiny = fixture("tiny");
    refused(&["convert", arg(&tiny), "--out", arg(&out), "--quant", "q9"], 2, "no type `q9`");
    assert!(!out.exists());
}
