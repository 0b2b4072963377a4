//! A museum of malicious GGUF files: each must be refused with a sentence that says what is wrong with it.

use crate::common::{Raw, TempFolder, gguf_file, small_config};
use tangelo_core::DType;
use tangelo_formats::gguf::{self, Array, Metadata, TensorPlan, Value};
use tangelo_formats::{Checkpoint, Error};

fn refused(exhibit: &str, bytes: &[u8], why: &str) {
    let error = gguf::parse(bytes).expect_err(exhibit).to_string();
    assert!(error.contains(why), "{exhibit}: {error}");
    assert!(error.len() < 400, "{exhibit}: a message is a sentence, not {} bytes", error.len());
}

const F32: u32 = 0;
const Q4_0: u32 = 2;

#[test]
fn beginnings() {
    refused("empty", b"", "4 more bytes are needed but 0 are left");
    refused("short", b"GGU", "4 more bytes are needed but 3 are left");
    refused("another format", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaa", "instead of \"GGUF\"");
    let version = |v: u32| Raw(b"GGUF".to_vec()).u32(v).u64(0).u64(0).0;
    for v in [0, 1, 4, 0xffff_ffff] {
        refused("version", &version(v), &format!("version {v} is not supported"));
    }
    for v in [2, 3] {
        assert_eq!(gguf::parse(&version(v)).unwrap().version, v);
        refused("big endian", &version(v.swap_bytes()), "the file is big endian");
    }
}

#[test]
fn absurd_counts() {
    refused(
        "tensors",
        &Raw::header(1 << 63, 0).0,
        "the number of tensors (byte 8) is 9223372036854775808, above",
    );
    refused(
        "pairs",
        &Raw::header(0, 1 << 40).0,
        "the number of metadata entries (byte 16) is 1099511627776, above",
    );
    refused(
        "pairs without bytes",
        &Raw::header(0, 65_536).0,
        "65536 metadata entries are announced but 0 bytes",
    );
    refused("tensors without bytes", &Raw::header(1 << 20, 0).0, "1048576 tensors are announced but 0 bytes");
    let pair = |raw: Raw| Raw::header(0, 1).bytes(&raw.0).bytes(&[0; 64]).0;
    refused("endless key", &pair(Raw::default().u64(u64::MAX)), "the length of a string");
    refused("long key", &pair(Raw::default().u64(1 << 24)), "16777216 more bytes are needed but 64 are left");
    let value = |dtype: u32, raw: Raw| pair(Raw::default().string("k").u32(dtype).bytes(&raw.0));
    let array = |dtype: u32, n: u64| value(9, Raw::default().u32(dtype).u64(n));
    refused("endless array", &array(0, u64::MAX), "the length of an array");
    for element in [0, 2, 4, 6, 7, 8, 9, 10, 12] {
        refused("long array", &array(element, 1 << 23), "8388608 ");
    }
    let error = gguf::parse(&array(10, 1 << 62)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { found, .. } if found == 1 << 62), "{error}");
}

#[test]
fn malformed_metadata() {
    let pair = |raw: Raw| Raw::header(0, 1).bytes(&raw.0).bytes(&[0; 64]).0;
    let value = |dtype: u32, raw: Raw| pair(Raw::default().string("k").u32(dtype).bytes(&raw.0));
    refused("key", &pair(Raw::default().u64(2).bytes(b"\xff\xfe").u32(0)), "a string is not UTF-8");
    refused(
        "string",
        &value(8, Raw::default().u64(1).bytes(b"\x80")),
        "invalid GGUF at byte 37: a string is not UTF-8",
    );
    refused("type", &value(13, Raw::default()), "unknown metadata value type 13");
    refused("array type", &value(9, Raw::default().u32(99).u64(0)), "unknown metadata value type 99");
    refused("bool", &value(7, Raw::default().bytes(&[2])), "a bool is 2, not 0 or 1");
    refused("bools", &value(9, Raw::default().u32(7).u64(1).bytes(&[3])), "a bool is 3");
    let deep = (0..100_000).fold(Raw::default(), |raw, _| raw.u32(9).u64(1));
    refused("arrays in arrays", &value(9, deep), "arrays are nested deeper than 4 levels");
    let twice = Raw::header(0, 2).string("k").u32(0).bytes(&[1]).string("k").u32(0).bytes(&[1]);
    refused("key twice", &twice.0, "metadata key `k` appears twice");
    let long_key = "\u{7}".repeat(100_000);
    let twice = Raw::header(0, 2).string(&long_key).u32(0).bytes(&[1]).string(&long_key).u32(0).bytes(&[1]);
    refused("long key twice", &twice.0, "\\u{7}…` appears twice");
    let alignment =
        |dtype, raw: Raw| Raw::header(0, 1).string("general.alignment").u32(dtype).bytes(&raw.0).0;
    refused("alignment 0", &alignment(4, Raw::default().u32(0)), "must be a power of two, found 0");
    refused("alignment 48", &alignment(4, Raw::default().u32(48)), "must be a power of two, found 48");
    refused(
        "alignment text",
        &alignment(8, Raw::default().string("32")),
        "should be a non-negative 32-bit integer",
    );
}

#[test]
fn malformed_tensors() {
    let one = |dims: &[u64], dtype, offset| Raw::header(1, 0).tensor("t", dims, dtype, offset).data(256).0;
    assert_eq!(gguf::parse(&one(&[8, 8], F32, 0)).unwrap().tensors[0].shape, [8, 8]);
    refused("dimensions", &one(&[1; 5], F32, 0), "tensor `t` has 5 dimensions; at most 4");
    let dims = Raw::header(1, 0).string("t").u32(u32::MAX).data(256);
    refused("billions of dimensions", &dims.0, "tensor `t` has 4294967295 dimensions");
    refused("zero", &one(&[4, 0], F32, 0), "tensor `t` has an impossible dimension");
    refused("overflow", &one(&[1 << 40, 1 << 40], F32, 0), "tensor `t` of type F32 cannot have shape");
    refused("size overflow", &one(&[u64::MAX], F32, 0), "tensor `t` of type F32 cannot have shape");
    refused("partial block", &one(&[33, 4], Q4_0, 0), "rows must be whole blocks of 32");
    refused("IQ2_XXS", &one(&[256], 16, 0), "tensor `t` has elements of type IQ2_XXS (ggml type 16)");
    refused("no such type", &one(&[256], 4, 0), "tensor `t` has elements of type ggml type 4, which");
    refused("misaligned", &one(&[4], F32, 16), "tensor `t` at offset 16 is not aligned to 32 bytes");
    refused(
        "outside",
        &one(&[4], F32, 256),
        "tensor `t` of 16 bytes at offset 256 ends beyond the file's 320 bytes",
    );
    refused("far outside", &one(&[4], F32, !31), "ends beyond the file's 320 bytes: it is truncated");
    let two = |a: (&str, u64), b: (&str, u64)| {
        Raw::header(2, 0).tensor(a.0, &[16], F32, a.1).tensor(b.0, &[16], F32, b.1).data(256).0
    };
    assert_eq!(gguf::parse(&two(("a", 64), ("b", 0))).unwrap().tensors.len(), 2);
    refused("overlap", &two(("a", 0), ("b", 32)), "tensors `a` and `b` overlap");
    refused("same bytes", &two(("a", 64), ("b", 64)), "overlap");
    refused("same name", &two(("a", 0), ("a", 64)), "tensor `a` appears twice");
}

#[test]
fn truncated_at_every_byte() {
    let file = gguf_file(&small_config('E'), |m, _| {
        let tokens = ["a", "b", "<|im_end|>"].into_iter().collect();
        m.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    });
    let end = gguf::parse(&file).unwrap().tensors.iter().map(|t| t.range.end).max().unwrap();
    for n in 0..end {
        assert!(gguf::parse(&file[..n]).is_err(), "{n} of {end} bytes");
    }
    assert!(gguf::parse(&file[..end]).is_ok(), "the padding at the end is not needed");
    let folder = TempFolder::new();
    for n in (0..end).step_by(97) {
        let path = folder.write("model.gguf", &file[..n]);
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    }
}

/// Opens the file of a small model after `edit`, which must make it impossible.
fn impossible(kind: char, edit: impl FnOnce(&mut Metadata, &mut Vec<TensorPlan>), why: &str) {
    let folder = TempFolder::new();
    let path = folder.write("model.gguf", gguf_file(&small_config(kind), edit));
    let error = Checkpoint::open(&path).expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn the_models_that_are_damaged_below_are_possible() {
    let folder = TempFolder::new();
    for kind in ['-', 'E'] {
        let path = folder.write("model.gguf", gguf_file(&small_config(kind), |_, _| {}));
        Checkpoint::open(&path).unwrap();
    }
}

#[test]
fn metadata_of_impossible_models() {
    let per_layer = |values: [i32; 3]| Value::Array(Array::I32(values.to_vec()));
    for (key, value, why) in [
        ("general.architecture", Value::String("llama".into()), "unsupported architecture `llama`"),
        (
            "general.architecture",
            Value::U8(1),
            "`general.architecture` should be a string, found a value of type u8",
        ),
        ("nemotron_h.block_count", Value::U32(4), "lists 3 layers, but the model has 4"),
        (
            "nemotron_h.block_count",
            Value::U32(u32::MAX),
            "nemotron_h.block_count is 4294967295, above the limit of 4096",
        ),
        ("nemotron_h.block_count", Value::F32(3.0), "should be a non-negative 32-bit integer"),
        ("nemotron_h.block_count", Value::I32(-3), "should be a non-negative 32-bit integer"),
        ("nemotron_h.embedding_length", Value::U32(0), "`hidden_size` must be between 1 and"),
        (
            "nemotron_h.embedding_length",
            Value::U32(5),
            "tensor `backbone.embeddings.weight` has shape [3, 4]",
        ),
        (
            "nemotron_h.attention.head_count_kv",
            per_layer([0, 3, 0]),
            "not a multiple of `num_key_value_heads`, 3",
        ),
        ("nemotron_h.attention.head_count_kv", per_layer([0, -1, 0]), "non-negative integers"),
        (
            "nemotron_h.attention.head_count_kv",
            per_layer([1, 1, 0]),
            "is missing; the checkpoint is incomplete",
        ),
        ("nemotron_h.attention.value_length", Value::U32(3), "keys have 2 channels"),
        (
            "nemotron_h.feed_forward_length",
            per_layer([2, 0, 3]),
            "differs between layers of one kind (2 and 3)",
        ),
        ("nemotron_h.ssm.time_step_rank", Value::U32(0), "not a multiple of the 0 heads"),
        ("nemotron_h.ssm.group_count", Value::U32(3), "not a multiple of `n_groups`, 3"),
        ("nemotron_h.ssm.conv_kernel", Value::U32(9999), "`conv_kernel` must be between 1 and 64"),
        (
            "nemotron_h.attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            "must be a positive number, found NaN",
        ),
        ("split.count", Value::U16(2), "split over several GGUF files"),
        (
            "tokenizer.ggml.eos_token_id",
            Value::String("</s>".into()),
            "should be a non-negative 32-bit integer",
        ),
    ] {
        impossible('-', |m, _| m.set(key, value), why);
    }
}

#[test]
fn tensors_of_impossible_models() {
    type Edit = fn(&mut Metadata, &mut Vec<TensorPlan>);
    let tensors: [(char, Edit, &str); 7] = [
        ('-', |_, t| drop(t.remove(3)), "tensor `backbone.layers.0.mixer.D` is missing"),
        ('-', |_, t| t[2].name = "blk.0.ssm_b".into(), "`blk.0.ssm_b` has no place in this architecture"),
        ('-', |_, t| t[0].shape = vec![4, 3], "tensor `backbone.embeddings.weight` has shape [4, 3]"),
        ('E', |m, _| m.set("nemotron_h_moe.expert_count", Value::U32(4)), "holds 2 experts"),
        ('E', |m, _| m.set("nemotron_h_moe.expert_gating_func", Value::U32(1)), "use 2 (sigmoid)"),
        ('E', |_, t| find(t, "ffn_up_exps").shape = vec![4, 4], "3 dimensions are expected"),
        (
            'E',
            |_, t| find(t, "ffn_up_exps").shape = vec![65_537, 1, 1],
            "`blk.2.ffn_up_exps.weight` is 65537, above",
        ),
    ];
    for (kind, edit, why) in tensors {
        impossible(kind, edit, why);
    }
}

fn find<'a>(tensors: &'a mut [TensorPlan], name: &str) -> &'a mut TensorPlan {
    tensors.iter_mut().find(|t| t.name.contains(name)).unwrap()
}

#[test]
fn tensors_beyond_the_last_layer_are_left_alone() {
    let file = gguf_file(&small_config('-'), |_, tensors| {
        tensors.push(TensorPlan {
            name: "blk.3.nextn.eh_proj.weight".into(),
            dtype: DType::F32,
            shape: vec![2],
        });
    });
    let folder = TempFolder::new();
    let checkpoint = Checkpoint::open(&folder.write("model.gguf", file)).unwrap();
    assert_eq!(checkpoint.tensors().len(), small_config('-').tensors().len());
}
