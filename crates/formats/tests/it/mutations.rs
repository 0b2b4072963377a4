//! Thousands of damaged variants of valid files. None may panic, and none may make a parser reserve memory out
//! of proportion to its input.

use crate::common::{Random, fixtures, gguf_file, plan, safetensors_file, small_config};
use tangelo_formats::gguf::{self, Array, Value};
use tangelo_formats::{Config, GenerationConfig, safetensors};

/// Numbers that break arithmetic.
const EDGES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0xffff, 1 << 31, u32::MAX as u64, 1 << 62, i64::MAX as u64, u64::MAX];

/// Damages a file in one to four places: flips, edge numbers, cuts, insertions, copies.
fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(6) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = random.next() as u8),
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                bytes.iter_mut().skip(at).zip(edge).take(width).for_each(|(b, e)| *b = e);
            }
            3 => bytes.truncate(at),
            4 => bytes.insert(at.min(bytes.len()), random.next() as u8),
            _ => {
                let n = random.below(16);
                let piece: Vec<u8> = bytes.iter().skip(at).take(n).copied().collect();
                let to = random.below(bytes.len().max(1));
                bytes.iter_mut().skip(to).zip(piece).for_each(|(b, p)| *b = p);
            }
        }
    }
    bytes
}

/// Everything that is done with the bytes of a GGUF file before weights are used.
fn read_gguf(bytes: &[u8]) -> bool {
    let Ok(gguf) = gguf::parse(bytes) else { return false };
    for tensor in &gguf.tensors {
        assert!(tensor.range.end <= bytes.len());
        if let Ok(Some(mapped)) = gguf::names::to_checkpoint(tensor) {
            assert!(
                mapped.iter().all(|m| tensor.range.start <= m.range.start && m.range.end <= tensor.range.end)
            );
        }
    }
    gguf::arch::config_from_gguf(&gguf).is_ok_and(|config| !config.tensors().is_empty())
}

fn read_safetensors(bytes: &[u8]) -> bool {
    let Ok(header) = safetensors::parse_header(bytes, bytes.len()) else { return false };
    assert!(header.tensors.iter().all(|t| t.range.end <= bytes.len()));
    true
}

/// The largest address space the process has had, in bytes, where the system tells.
fn peak_address_space() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Runs `read` on `rounds` variants; at least one must survive and one must not, or the mutations are useless.
fn survive(original: &[u8], rounds: usize, seed: u64, read: fn(&[u8]) -> bool) {
    assert!(read(original));
    let before = peak_address_space();
    let mut random = Random(seed);
    let accepted = (0..rounds).filter(|_| read(&mutate(original, &mut random))).count();
    assert!(accepted > 0 && accepted < rounds, "{accepted} of {rounds} variants accepted");
    if let (Some(before), Some(after)) = (before, peak_address_space()) {
        // Threads of this test binary reserve arenas of 64 MiB each; an attack asks for gigabytes.
        assert!(after - before < 1 << 30, "{} MiB were reserved for small files", (after - before) >> 20);
    }
}

#[test]
fn gguf_headers() {
    for (seed, kind) in [(1, '-'), (2, 'E')] {
        let file = gguf_file(&small_config(kind), |m, _| {
            let tokens = ["a", "b", "<|im_end|>"].into_iter().collect();
            m.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
            m.set(
                "nested",
                Value::Array(Array::Array(vec![Array::U64(vec![1, 2]), Array::Bool(vec![true])])),
            );
        });
        survive(&file, 6000, seed, read_gguf);
    }
    // A real vocabulary and a real directory; the tensors' bytes are not looked at, so they may be zeros.
    let fixture = std::fs::read(fixtures().join("tiny/gguf/bf16.gguf")).unwrap();
    survive(&fixture, 300, 3, read_gguf);
}

#[test]
fn safetensors_headers() {
    survive(&safetensors_file(&plan(&small_config('E'))), 6000, 4, read_safetensors);
}

#[test]
fn json_files() {
    let read_config = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        Config::from_json(&text).is_ok_and(|config| !config.tensors().is_empty())
    };
    for (seed, name) in [(5, "tiny"), (6, "moe_latent")] {
        let text = std::fs::read(fixtures().join(name).join("config.json")).unwrap();
        survive(&text, 6000, seed, read_config);
    }
    let text = std::fs::read(fixtures().join("tiny/generation_config.json")).unwrap();
    survive(&text, 3000, 7, |bytes| GenerationConfig::from_json(&String::from_utf8_lossy(bytes)).is_ok());
}

#[test]
fn configurations_truncated_at_every_byte() {
    let text = std::fs::read_to_string(fixtures().join("odd/config.json")).unwrap();
    for n in 0..text.len() {
        assert!(Config::from_json(&text[..n]).is_err(), "{n}");
    }
    Config::from_json(&text).unwrap();
}
