//! The record as a page for people.

use super::compare::{Comparison, Test};
use super::report::{DeviceFacts, Report};
use crate::page::{Page, count, grouped, size};

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page = Page::new(&report.model.name);
    facts(&mut page, report);
    limits(&mut page, report);
    if !report.measured.prefill.is_empty() {
        prefill(&mut page, report);
    }
    if !report.measured.decode.is_empty() {
        decode(&mut page, report);
    }
    if let Some(comparison) = &report.comparison {
        beside(&mut page, comparison);
    }
    page.text()
}

fn facts(page: &mut Page, report: &Report) {
    let model = &report.model;
    let all: u64 = model.types.iter().map(|(.., bytes)| bytes).sum();
    let share = |bytes: u64| 100.0 * bytes as f64 / all.max(1) as f64;
    let types: Vec<String> =
        model.types.iter().map(|(name, _, bytes)| format!("{:.1} % {name}", share(*bytes))).collect();
    page.line("parameters", &grouped(model.parameters));
    page.line("weights", &size(all));
    page.list("", &types);
    page.line("loaded in", &seconds(report.load_s * 1e3));
    if let (Some(warm), Some(cold)) = (report.ttft_ms(), report.ttft_with_load_ms()) {
        let tokens = report.plan.prompts.first().copied().unwrap_or_default();
        let prompt = count(tokens, "token");
        page.line("first token", &format!("{} after a prompt of {prompt}", seconds(warm)));
        page.line("", &format!("{} with loading, the first time", seconds(cold)));
    }
    page.line("memory, at most", &report.peak_rss_bytes.map_or_else(|| "not known".into(), size));
    if let Some(device) = &report.device {
        page.line("", &format!("{} on the device", size(device.peak_bytes)));
    }
    let work = &report.work;
    page.line("read per token", &format!("{} of weights", size(work.weight_bytes(1) as u64)));
    page.line("", &format!("{} of state, read and written", size(work.state_bytes)));
    page.line("", &format!("{} of keys and values per position", size(work.kv_bytes_per_token)));
}

fn limits(page: &mut Page, report: &Report) {
    let limits = &report.limits;
    page.section("Limits of the machine");
    let cpu = report.cpu.as_deref().unwrap_or("processor without a name");
    page.line("processor", &format!("{cpu}, {}, {}", count(report.threads, "thread"), report.simd));
    if let Some(DeviceFacts { properties, .. }) = &report.device {
        let (major, minor) = properties.capability;
        page.line("device", &format!("{}, compute capability {major}.{minor}", properties.name));
    }
    let mut limit = |label, rate: Option<f64>, unit| {
        if let Some(rate) = rate {
            page.line(label, &format!("{:>9.1} {unit}", rate / 1e9));
        }
    };
    limit("memory", limits.read_bytes_per_s, "GB/s read");
    limit("int8", limits.int8_ops_per_s, "GOP/s");
    limit("f32", limits.f32_flops_per_s, "GFLOP/s");
}

fn prefill(page: &mut Page, report: &Report) {
    page.section("Prefill, tokens/s");
    let is_float = report.work.is_float() && report.limits.f32_flops_per_s.is_some();
    let mut head = row(["median", "min", "max", "of int8"]);
    head.push_str(if is_float { "     of f32" } else { "" });
    page.line(&format!("{:>16}", "prompt"), &head);
    for p in &report.measured.prefill {
        let speeds = [p.tokens_per_s.median, p.tokens_per_s.min, p.tokens_per_s.max].map(speed);
        let [median, min, max] = &speeds;
        let mut line = row([median, min, max, &percent(report.fraction_of_int8(p))]);
        if is_float {
            line.push_str(&format!("{:>11}", percent(report.fraction_of_f32(p))));
        }
        page.line(&format!("{:>16}", grouped(p.tokens as u64)), &line);
    }
}

fn decode(page: &mut Page, report: &Report) {
    page.section(&format!("Decode of {}, tokens/s", count(report.plan.generate, "token")));
    let label = |depth: &str, batch: &str| format!("{depth:>9} {batch:>6}");
    let head = ["median", "min", "max", "of memory", "p50 ms", "p99 ms"];
    page.line(&label("depth", "batch"), &row(head));
    for d in &report.measured.decode {
        let [median, min, max] = [d.tokens_per_s.median, d.tokens_per_s.min, d.tokens_per_s.max].map(speed);
        let fraction = percent(report.fraction_of_bandwidth(d));
        let (p50, p99) = (format!("{:.2}", d.p50_ms), format!("{:.2}", d.p99_ms));
        page.line(
            &label(&grouped(d.depth as u64), &d.batch.to_string()),
            &row([&median, &min, &max, &fraction, &p50, &p99]),
        );
    }
}

fn beside(page: &mut Page, comparison: &Comparison) {
    page.section("Beside llama.cpp");
    for peer in &comparison.peer {
        page.sentence("measured with", peer);
    }
    if !comparison.ratios.is_empty() {
        page.line(&format!("{:>16}", "tokens"), &row(["ours", "theirs", "ratio"]));
    }
    for ratio in &comparison.ratios {
        let (tokens, what) = match ratio.test {
            Test::Prefill { tokens } | Test::Mixed { tokens, .. } => (tokens, "prefill".to_string()),
            Test::Decode { depth, generate } => {
                (generate, format!("decode at depth {}", grouped(depth as u64)))
            }
        };
        let line = row([&speed(ratio.ours), &speed(ratio.theirs), &format!("{:.2}x", ratio.ratio())]);
        page.line(&format!("{:>16}", grouped(tokens as u64)), &format!("{line}  {what}"));
    }
    for note in &comparison.notes {
        page.sentence("note", note);
    }
}

/// Columns of numbers.
fn row<const N: usize>(cells: [&str; N]) -> String {
    cells.map(|cell| format!("{cell:>11}")).concat()
}

/// Tokens per second to three or four digits.
fn speed(tokens_per_s: f64) -> String {
    if tokens_per_s < 100.0 { format!("{tokens_per_s:.2}") } else { format!("{tokens_per_s:.1}") }
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".into(), |fraction| format!("{:.1} %", fraction * 100.0))
}

/// A time in the unit that suits it.
fn seconds(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::compare::Ratio;
    use crate::commands::bench::report::Limits;
    use crate::commands::bench::report::tests::report;
    use tangelo_ops::cuda::Properties;

    const PAGE: &str = "\
tiny
  parameters        296,536
  weights           579.17 KiB
                    100.0 % BF16
  loaded in         250.0 ms
  first token       512.0 ms after a prompt of 512 tokens
                    1.00 s with loading, the first time
  memory, at most   64.00 MiB
  read per token    505.00 KiB of weights
                    45.00 KiB of state, read and written
                    768 B of keys and values per position

Limits of the machine
  processor         Example CPU, 2 threads, reference
  memory                 40.0 GB/s read
  int8                  800.0 GOP/s
  f32                   200.0 GFLOP/s

Prefill, tokens/s
            prompt       median        min        max    of int8     of f32
               512       1000.0      500.0     2000.0      0.1 %      0.2 %

Decode of 65 tokens, tokens/s
      depth  batch       median        min        max  of memory     p50 ms     p99 ms
          0      1        100.0      50.00      200.0      0.2 %      10.00      20.00
      1,024      8        400.0      200.0      800.0      1.0 %      20.00      40.00

Beside llama.cpp
  measured with     llama.cpp abc1234, nemotron_h BF16
            tokens         ours     theirs      ratio
               512       1000.0      400.0      2.50x  prefill
                65        100.0      80.00      1.25x  decode at depth 0
  note              llama.cpp ran with 4 threads, this program with 2.
";

    #[test]
    fn the_page_is_aligned() {
        let comparison = Comparison {
            peer: vec!["llama.cpp abc1234, nemotron_h BF16".into()],
            ratios: vec![
                Ratio { test: Test::Prefill { tokens: 512 }, ours: 1000.0, theirs: 400.0 },
                Ratio { test: Test::Decode { depth: 0, generate: 65 }, ours: 100.0, theirs: 80.0 },
            ],
            notes: vec!["llama.cpp ran with 4 threads, this program with 2.".into()],
        };
        let page = page(&Report { comparison: Some(comparison), ..report() });
        assert_eq!(page, PAGE, "\n{page}");
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let mut report = report();
        (report.cpu, report.peak_rss_bytes) = (None, None);
        report.measured.prefill.clear();
        report.measured.decode.clear();
        report.measured.first_prefill_s = None;
        let page = page(&report);
        assert!(page.contains("not known") && page.contains("processor without a name"), "{page}");
        for absent in ["Prefill", "Decode", "Beside", "first token"] {
            assert!(!page.contains(absent), "{page}");
        }
    }

    #[test]
    fn a_device_is_named_with_its_own_limit() {
        let mut report = report();
        report.device = Some(DeviceFacts {
            properties: Properties {
                ordinal: 0,
                name: "Example GPU".into(),
                capability: (8, 6),
                driver: 12_060,
                multiprocessors: 4,
                total_bytes: 8 << 30,
                is_integrated: false,
            },
            peak_bytes: 3 << 30,
        });
        report.limits = Limits { read_bytes_per_s: Some(1e12), ..Limits::default() };
        let page = page(&report);
        for line in [
            "  memory, at most   64.00 MiB\n                    3.00 GiB on the device\n",
            "  device            Example GPU, compute capability 8.6\n  memory               1000.0 GB/s read\n\n",
            "               512       1000.0      500.0     2000.0          -\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!([0.04, 999.94, 1000.0].map(seconds), ["0.0 ms", "999.9 ms", "1.00 s"]);
    }
}
