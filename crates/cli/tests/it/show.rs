//! `tangelo show`: the page of a fixture as it is read, the published figures, and what can be shown of half a model.

use std::fs;

use serde_json::{Value, json};

use crate::program::{arg, fixture, refused, run, scratch};

const TINY: &str = "\
../../fixtures/tiny
  architecture      Nemotron-H
  format            safetensors
  licence           not named
  context           4,096 tokens

Layers
  8                 3 Mamba-2 (M), 2 attention (*), 3 MLP (-)
                 0  M - M * - M - *
  attention at      3, 7
  width             64
  Mamba-2           24 heads of 8, state 16, 2 groups, convolution of 4
  attention         4 heads of 24 on 2 key/value heads
  MLP               160 wide, squared ReLU

Parameters
  total                     296,536
  embedding                  32,768
  output matrix              32,768
  active                    263,768  multiplied for each token

Weights
  BF16               579.17 KiB      49 tensors
  total              579.17 KiB      49 tensors
  file              ../../fixtures/tiny/model.safetensors

Memory
  weights            583.95 KiB  copied from 1 file
  state               45.00 KiB  for each sequence
  keys, values            768 B  for each token, 384 B with --kv f16
      4,096 tokens     3.04 MiB  in one sequence, the longest

Text
  vocabulary        512
  tokenizer         byte-level BPE, 512 tokens, tokenizer.json
  special tokens    0 <unk>, 1 <s>, 2 </s>, 3 [INST], 4 [/INST], 5 [AVAILABLE_TOOLS],
                    6 [/AVAILABLE_TOOLS], 7 [TOOL_RESULTS], 8 [/TOOL_RESULTS], 9 [TOOL_CALLS],
                    10 <|im_start|>, 11 <|im_end|>, 12 <think>, 13 </think>, 14 <tool_call>,
                    15 </tool_call>, 16 <tool_response>, 17 </tool_response>, 14 more
  stops at          2 </s>, 11 <|im_end|>
  chat template     5,911 bytes, dialect nemotron3
";

const SHAPE_30B: &str = "\
nemotron-3-nano-30b-a3b
  architecture      Nemotron-H with experts
  context           262,144 tokens

Layers
  52                23 Mamba-2 (M), 6 attention (*), 23 experts (E)
                 0  M E M E M * E M E M
                10  E M * E M E M E M *
                20  E M E M E M * E M E
                30  M E M * E M E M E M
                40  E M * E M E M E M E
                50  M E
  attention at      5, 12, 19, 26, 33, 42
  width             2688
  Mamba-2           64 heads of 64, state 128, 8 groups, convolution of 4
  attention         32 heads of 128 on 2 key/value heads
  experts           6 of 128, 1856 wide, and a shared one, 3712 wide

Parameters
  total              31,577,940,288
  embedding             352,321,536
  output matrix         352,321,536
  active              3,227,754,816  multiplied for each token

Memory
  state               47.62 MiB  for each sequence
  keys, values        12.00 KiB  for each token, 6.00 KiB with --kv f16
      4,096 tokens    95.62 MiB  in one sequence
     32,768 tokens   431.62 MiB  in one sequence
    131,072 tokens     1.55 GiB  in one sequence
    262,144 tokens     3.05 GiB  in one sequence, the longest
";

/// Tests run in the folder of their crate.
const FIXTURES: &str = "../../fixtures";

fn document(args: &[&str]) -> Value {
    serde_json::from_str(&run(&[&["show", "--json"], args].concat())).expect("one JSON document")
}

#[test]
fn the_page_of_a_folder() {
    assert_eq!(run(&["show", &format!("{FIXTURES}/tiny")]), TINY);
}

#[test]
fn the_page_of_sizes_alone() {
    assert_eq!(run(&["show", "--shape", "nemotron-3-nano-30b-a3b"]), SHAPE_30B);
    let folder = run(&["show", &format!("{FIXTURES}/shape4b")]);
    let file = run(&["show", &format!("{FIXTURES}/shape4b/config.json")]);
    assert_eq!(folder.lines().skip(1).collect::<Vec<_>>(), file.lines().skip(1).collect::<Vec<_>>());
    assert!(folder.contains("17,506,880") && !folder.contains("Weights"), "{folder}");
}

#[test]
fn the_figures_of_the_4b() {
    let facts = document(&["--shape", "nemotron-3-nano-4b"]);
    assert_eq!(facts["parameters"]["total"], 3_973_556_832_u64);
    assert_eq!(facts["layers"]["attention"], json!([12, 17, 24, 32]));
    assert_eq!(facts["layers"]["mlp"].as_array().map(Vec::len), Some(17));
    assert_eq!(facts["memory"]["state_bytes_per_sequence"], 85_026_816);
    assert_eq!(facts["memory"]["contexts"][3]["tokens"], 262_144);
    assert_eq!(facts.get("format"), None, "there are no files");
}

#[test]
fn a_gguf_file_says_how_it_was_quantised() {
    let path = fixture("quantised/tiny-Q5_0.gguf");
    let facts = document(&[arg(&path)]);
    assert_eq!((&facts["format"], &facts["quantisation"]), (&json!("GGUF v3"), &json!("Q5_0")));
    assert_eq!(facts["file_bytes"], fs::metadata(&path).expect("the file").len());
    let types = facts["types"].as_array().expect("types");
    assert!(types.iter().any(|t| t["type"] == "Q5_0"));
    assert_eq!(types.iter().map(|t| t["tensors"].as_u64().expect("a number")).sum::<u64>(), 49);
    assert_eq!(facts["tokenizer"]["split"], "pixtral");
    assert_eq!(facts["stop_ids"], json!([2, 11]));
    assert_eq!(facts["chat_template"]["dialect"], "nemotron3");
}

#[test]
fn fp8_licence_and_a_broken_tokenizer_are_told() {
    let folder = scratch("show-fp8");
    let (config, out) = (fixture("tiny/config.json"), folder.join("fp8"));
    run(&["synth", "--config", arg(&config), "--format", "safetensors", "--fp8", "--out", arg(&out)]);
    fs::write(out.join("README.md"), "---\nlicense: apache-2.0\n---\n").expect("a file");
    fs::write(out.join("tokenizer.json"), "{}").expect("a file");
    let page = run(&["show", arg(&out)]);
    // M-M*-M-*: the Mamba layers 0 and 5, and three MLPs; layer 2 feeds attention.
    assert!(page.contains("FP8 with 10 weight scales, 10 input scales, 4 key and value scales"), "{page}");
    assert!(page.contains("  F8_E4M3 ") && page.contains("licence           apache-2.0\n"), "{page}");
    assert!(page.contains("tokenizer         cannot be used: "), "{page}");
    let facts = document(&[arg(&out)]);
    assert!(facts["tokenizer"]["error"].is_string() && facts["license"] == "apache-2.0");
}

#[test]
fn wrong_wishes_are_refused() {
    refused(&["show"], 2, "--shape");
    refused(&["show", "--shape", "nemotron-5"], 2, "nemotron-3-nano-4b");
    refused(&["show", "x", "--shape", "nemotron-h-4b"], 2, "--shape");
    refused(&["show", "no/such.gguf"], 1, "no/such.gguf");
    let folder = fixture("quantised");
    refused(&["show", arg(&folder)], 1, "several GGUF files");
    let wrong = fixture("tiny/generation_config.json");
    refused(&["show", arg(&wrong)], 1, "generation_config.json");
}
