//! A museum of malicious safetensors files, indexes and folders.

use crate::common::{TempFolder, plan, safetensors_file, small_config};
use tangelo_core::DType;
use tangelo_formats::Checkpoint;
use tangelo_formats::safetensors::parse_header;

/// A file with this header text and `n` bytes of data.
fn file(header: &str, n: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + n, 0);
    bytes
}

fn refused(bytes: &[u8], why: &str) {
    let error = parse_header(bytes, bytes.len()).expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
    assert!(error.len() < 400, "a message is a sentence, not {} bytes", error.len());
}

#[test]
fn malformed_headers() {
    refused(b"", "the file has 0 bytes, too few");
    refused(&[1; 7], "the file has 7 bytes, too few");
    refused(
        &u64::MAX.to_le_bytes(),
        "the safetensors header length is 18446744073709551615, above the limit",
    );
    refused(&100_000_001u64.to_le_bytes(), "header length is 100000001, above the limit of 100000000");
    refused(&100_000_000u64.to_le_bytes(), "it should have 100000000 bytes but 0 are left");
    refused(&file("{\"a", 0), "EOF while parsing");
    refused(&file("", 0), "EOF while parsing");
    refused(&file("[]", 0), "expected an object of tensors");
    refused(&file(&"{\"a\":".repeat(100_000), 0), "invalid");
    refused(&file(&format!("{{\"a\": {}", "[".repeat(100_000)), 0), "invalid safetensors header");
    let mut not_text = file("{}  ", 0);
    not_text[10] = 0xff;
    refused(&not_text, "it is not UTF-8");
    refused(&file(r#"{"__metadata__": {"a": 1}}"#, 0), "expected a string");
    assert!(parse_header(&file("{}", 0), 10).unwrap().tensors.is_empty());
}

/// One tensor `t` with this dtype, shape and range.
fn one(dtype: &str, shape: &str, range: &str) -> String {
    format!(r#"{{"t": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {range}}}}}"#)
}

#[test]
fn malformed_tensors() {
    let good = file(&one("F32", "[2]", "[0, 8]"), 8);
    assert_eq!(parse_header(&good, good.len()).unwrap().tensors[0].shape, [2]);
    for (dtype, shape, range, n, why) in [
        ("Q9", "[2]", "[0, 8]", 8, "unknown variant `Q9`"),
        ("F32", "[-2]", "[0, 8]", 8, "invalid value: integer `-2`"),
        ("F32", "[2.5]", "[0, 8]", 8, "invalid type: floating point"),
        ("F32", "[2]", "[0, 8, 9]", 8, "invalid safetensors header"),
        ("F32", "[2]", "[0]", 8, "invalid length 1"),
        ("F32", "[2]", "[4, 12]", 12, "tensor `t` begins at byte 4 of the data where 0 was expected"),
        ("F32", "[2]", "[8, 0]", 8, "begins at byte 8"),
        ("F32", "[3]", "[0, 8]", 8, "range 0..8, which does not fit F32 elements of shape [3]"),
        ("F32", "[2]", "[0, 8]", 7, "ends at byte 8 of the data, but there are 7: the file is truncated"),
        ("F32", "[2]", "[0, 8]", 9, "its tensors cover 8 bytes, but 9 follow the header"),
        ("F32", "[4611686018427387904]", "[0, 8]", 8, "does not fit F32"),
        ("F32", "[9223372036854775807, 9223372036854775807]", "[0, 8]", 8, "does not fit F32"),
        ("U8", "[18446744073709551615]", "[0, 18446744073709551615]", 8, "tensor `t`"),
        ("F4", "[3]", "[0, 2]", 2, "does not fit F4"),
        ("F32", "[1,1,1,1,1,1,1,1,1]", "[0, 4]", 4, "tensor `t` has 9 dimensions"),
    ] {
        refused(&file(&one(dtype, shape, range), n), why);
    }
    let two = |a: &str, b: &str, ra: &str, rb: &str| {
        let entry = |name: &str, range: &str| {
            format!(r#""{name}": {{"dtype": "U8", "shape": [4], "data_offsets": {range}}}"#)
        };
        file(&format!("{{{}, {}}}", entry(a, ra), entry(b, rb)), 8)
    };
    let bytes = two("a", "b", "[4, 8]", "[0, 4]");
    assert_eq!(parse_header(&bytes, bytes.len()).unwrap().tensors[0].name, "b", "sorted by position");
    refused(
        &two("a", "b", "[0, 4]", "[3, 7]"),
        "tensor `b` begins at byte 3 of the data where 4 was expected",
    );
    refused(&two("a", "b", "[0, 4]", "[0, 4]"), "ranges overlap or leave a hole");
    refused(&two("a", "a", "[0, 4]", "[4, 8]"), "`a` appears twice");
    refused(&two("a", "a", "[0, 4]", "[0, 4]"), "`a` appears twice");
}

#[test]
fn truncated_at_every_byte() {
    let bytes = safetensors_file(&plan(&small_config('E')));
    assert!(parse_header(&bytes, bytes.len()).is_ok());
    for n in 0..bytes.len() {
        assert!(parse_header(&bytes[..n], n).is_err(), "{n} of {} bytes", bytes.len());
    }
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    for (weight_map, why) in [
        (
            r#"{"a": "../model.safetensors"}"#,
            "names `../model.safetensors`, which is not a file of the same folder",
        ),
        (r#"{"a": "/etc/passwd"}"#, "names `/etc/passwd`"),
        (r#"{"a": "sub/model.safetensors"}"#, "names `sub/model.safetensors`"),
        (r#"{"a": "..\\model.safetensors"}"#, "which is not a file of the same folder"),
        (r#"{"a": ".."}"#, "names `..`"),
        (r#"{"a": "."}"#, "names `.`"),
        (r#"{"a": ""}"#, "names ``"),
        (r#"{"a": "x\u0000y"}"#, "names `x\\0y`"),
        (r#"{"a": 7}"#, "should hold file names, found 7"),
        (r#"["a"]"#, "should be an object from tensor names to file names"),
        ("{}", "names no files"),
        (r#"{"a": "absent.safetensors"}"#, "absent.safetensors: No such file"),
    ] {
        let folder = TempFolder::new();
        folder.write("config.json", small_config('-').to_json());
        folder.write("model.safetensors.index.json", format!(r#"{{"weight_map": {weight_map}}}"#));
        let error = Checkpoint::open(&folder.0).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn folders_that_are_no_models() {
    let check = |folder: &TempFolder, name: &str, why: &str| {
        let error = Checkpoint::open(&folder.0.join(name)).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    let folder = TempFolder::new();
    check(&folder, "absent", "cannot open ");
    check(&folder, "", "has no model.safetensors, model.safetensors.index.json or .gguf file");
    folder.write("notes.txt", "not a model");
    check(&folder, "notes.txt", "neither a GGUF nor a safetensors file");
    folder.write("model.safetensors", safetensors_file(&plan(&small_config('-'))));
    check(&folder, "", "there is no config.json beside the weights");
    folder.write("config.json", "{");
    check(&folder, "", "config.json: config.json is not valid JSON");
    let huge = std::fs::File::create(folder.0.join("config.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    check(&folder, "", "config.json: the size in bytes is 1099511627776, above the limit");
    folder.write("config.json", small_config('-').to_json());
    Checkpoint::open(&folder.0).unwrap();
    folder.write("generation_config.json", r#"{"top_k": -1}"#);
    check(&folder, "", "generation_config.json: configuration key `top_k` should be");
    let several = TempFolder::new();
    several.write("a.gguf", "");
    several.write("b.gguf", "");
    check(&several, "", "several GGUF files; name one of a.gguf, b.gguf");
}

#[test]
fn weights_that_do_not_fit_their_configuration() {
    let config = small_config('E');
    let open = |tensors: &[(String, DType, Vec<usize>)]| {
        let folder = TempFolder::new();
        folder.write("config.json", config.to_json());
        folder.write("model.safetensors", safetensors_file(tensors));
        Checkpoint::open(&folder.0).map_err(|e| e.to_string())
    };
    for i in 0..plan(&config).len() {
        let mut tensors = plan(&config);
        let (name, _, _) = tensors.remove(i);
        let error = open(&tensors).unwrap_err();
        assert!(error.contains(&format!("tensor `{name}` is missing")), "{error}");
        let mut tensors = plan(&config);
        tensors[i].2.push(1);
        let error = open(&tensors).unwrap_err();
        assert!(error.contains(&format!("tensor `{name}` has shape")), "{error}");
    }
    let mut twice = plan(&config);
    twice.push(("model.norm_f.weight".into(), DType::F32, vec![4]));
    assert!(open(&twice).unwrap_err().contains("`backbone.norm_f.weight` is in the checkpoint twice"));
    let mut stack = plan(&config);
    stack.push(("model.layers.2.mixer.experts.up_proj".into(), DType::F32, vec![3, 2, 4]));
    assert!(open(&stack).unwrap_err().contains("is 2, but tensor"));
}

#[test]
fn types_nobody_computes_with_are_refused_when_asked_for() {
    let config = small_config('-');
    let folder = TempFolder::new();
    folder.write("config.json", config.to_json());
    let mut bytes = safetensors_file(&plan(&config));
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + header_len].to_vec()).unwrap();
    // Same size, other meaning: the last tensor becomes integers.
    let at = header.rfind("\"F32\"").unwrap();
    bytes[8 + at..8 + at + 5].copy_from_slice(b"\"I32\"");
    let path = folder.write("model.safetensors", &bytes);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let error = checkpoint.tensor("lm_head.weight").unwrap_err().to_string();
    assert!(
        error.contains("tensor `lm_head.weight` has elements of type I32, which this program cannot read"),
        "{error}"
    );
    assert_eq!(checkpoint.tensors().filter(|t| t.dtype.is_none()).count(), 1);
    checkpoint.tensor("backbone.norm_f.weight").unwrap();
}
