//! All that is known at the end of a run, for both forms of output.

use anyhow::Result;
use tangelo_model::Placement;
use tangelo_ops::cuda::Properties;
use tangelo_ops::{Cx, Simd, probe};

use super::compare::Comparison;
use super::measure::{Decode, Measured, Plan, Prefill};
use super::work::Work;

/// The record of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was measured.
    pub model: ModelFacts,
    /// How it was asked for, as typed.
    pub command: String,
    /// Seconds since 1970 at the end of the run.
    pub unix_time_s: u64,
    /// Name of the processor, where known.
    pub cpu: Option<String>,
    /// What was to be measured.
    pub plan: Plan,
    /// What came out.
    pub measured: Measured,
    /// From opening the files to a model that is ready.
    pub load_s: f64,
    /// Most memory resident until the end of the measurements, where known.
    pub peak_rss_bytes: Option<u64>,
    /// What the model has to do.
    pub work: Work,
    /// Threads on the host.
    pub threads: usize,
    /// Instruction set on the host.
    pub simd: Simd,
    /// The device that the model or a part of it is on.
    pub device: Option<DeviceFacts>,
    /// What limits the speed.
    pub limits: Limits,
    /// Beside llama.cpp, if asked for.
    pub comparison: Option<Comparison>,
}

/// Which model it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// As named on the command line.
    pub name: String,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Type, tensors, bytes; the largest share first.
    pub types: Vec<(String, usize, u64)>,
}

/// The device and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// What it says of itself.
    pub properties: Properties,
    /// Most bytes of its memory in buffers until the end of the measurements.
    pub peak_bytes: u64,
}

/// What can be done per second where the model is; `None` where that is not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes read from memory.
    pub read_bytes_per_s: Option<f64>,
    /// Operations on 8-bit integers.
    pub int8_ops_per_s: Option<f64>,
    /// Operations on f32.
    pub f32_flops_per_s: Option<f64>,
}

impl Limits {
    /// Measures the machine, or the device that the whole model is on. A model in two places has no limit of its own.
    ///
    /// # Errors
    /// If there is no memory for it or the device fails.
    pub fn measure(cx: &Cx, placement: Placement) -> Result<Limits> {
        match (cx.gpu(), placement.first_on_device) {
            (Some(gpu), Some(0)) => {
                let read_bytes_per_s = probe::device_read_bytes_per_s(gpu)?;
                Ok(Limits { read_bytes_per_s, ..Limits::default() })
            }
            (Some(_), Some(_)) => Ok(Limits::default()),
            _ => {
                let limits = probe::limits(cx)?;
                Ok(Limits {
                    read_bytes_per_s: Some(limits.read_bytes_per_s),
                    int8_ops_per_s: Some(limits.int8_ops_per_s),
                    f32_flops_per_s: Some(limits.f32_flops_per_s),
                })
            }
        }
    }
}

impl Report {
    /// Milliseconds to the logits after a prompt of the first size, with everything in memory.
    pub fn ttft_ms(&self) -> Option<f64> {
        self.measured.prefill.first().map(|p| p.tokens as f64 / p.tokens_per_s.median * 1e3)
    }

    /// The same from a program that has not opened the model yet: loading, and the very first prefill.
    pub fn ttft_with_load_ms(&self) -> Option<f64> {
        self.measured.first_prefill_s.map(|first| (self.load_s + first) * 1e3)
    }

    /// Operations per second of a prefill.
    fn ops_per_s(&self, prefill: &Prefill) -> f64 {
        self.work.prefill_ops(prefill.tokens) * prefill.tokens_per_s.median
    }

    /// Part of the int8 rate that a prefill comes to.
    pub fn fraction_of_int8(&self, prefill: &Prefill) -> Option<f64> {
        self.limits.int8_ops_per_s.map(|limit| self.ops_per_s(prefill) / limit)
    }

    /// Part of the f32 rate that a prefill comes to; `None` if most weights are quantised.
    pub fn fraction_of_f32(&self, prefill: &Prefill) -> Option<f64> {
        let limit = self.limits.f32_flops_per_s.filter(|_| self.work.is_float());
        limit.map(|limit| self.ops_per_s(prefill) / limit)
    }

    /// Bytes that one step moves on average: step s of n attends to the positions before it and its own.
    pub fn step_bytes(&self, decode: &Decode) -> f64 {
        let positions = decode.depth as f64 + (self.plan.generate as f64 + 1.0) / 2.0;
        self.work.step_bytes(decode.batch, positions)
    }

    /// Part of the read bandwidth that decoding comes to.
    pub fn fraction_of_bandwidth(&self, decode: &Decode) -> Option<f64> {
        let steps_per_s = decode.tokens_per_s.median / decode.batch as f64;
        self.limits.read_bytes_per_s.map(|limit| self.step_bytes(decode) * steps_per_s / limit)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use tangelo_formats::Checkpoint;
    use tangelo_ops::attention::KvType;

    use super::*;
    use crate::commands::bench::statistics::Spread;

    /// A record of round numbers on the tiny fixture.
    pub fn report() -> Report {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
        let checkpoint = Checkpoint::open(&path).expect("a fixture");
        let spread = |median: f64| Spread { median, min: median / 2.0, max: median * 2.0 };
        let decode = |depth, batch, speed| Decode {
            depth,
            batch,
            tokens_per_s: spread(speed),
            samples: vec![speed / 2.0, speed, speed * 2.0],
            p50_ms: 1e3 / speed * batch as f64,
            p99_ms: 2e3 / speed * batch as f64,
        };
        let prefill =
            Prefill { tokens: 512, tokens_per_s: spread(1000.0), samples: vec![500.0, 1000.0, 2000.0] };
        let decode = vec![decode(0, 1, 100.0), decode(1024, 8, 400.0)];
        let plan = Plan {
            prompts: vec![512],
            generate: 65,
            depths: vec![0, 1024],
            batches: vec![1, 8],
            repetitions: 3,
            chunk: 128,
        };
        Report {
            model: ModelFacts {
                name: "tiny".into(),
                parameters: 296_536,
                file_bytes: 597_968,
                types: vec![("BF16".into(), 49, 593_072)],
            },
            command: "tangelo bench tiny".into(),
            unix_time_s: 1_800_000_000,
            cpu: Some("Example CPU".into()),
            plan,
            measured: Measured { prefill: vec![prefill], decode, first_prefill_s: Some(0.75) },
            load_s: 0.25,
            peak_rss_bytes: Some(64 << 20),
            work: Work::of(&checkpoint, KvType::F32).expect("its types can be read"),
            threads: 2,
            simd: Simd::Reference,
            device: None,
            limits: Limits {
                read_bytes_per_s: Some(4e10),
                int8_ops_per_s: Some(8e11),
                f32_flops_per_s: Some(2e11),
            },
            comparison: None,
        }
    }

    #[test]
    fn times_and_fractions_follow_from_speeds() {
        let report = report();
        assert_eq!((report.ttft_ms(), report.ttft_with_load_ms()), (Some(512.0), Some(1000.0)));
        let prefill = &report.measured.prefill[0];
        let ops = report.work.prefill_ops(512) * 1000.0;
        assert_eq!(report.fraction_of_int8(prefill), Some(ops / 8e11));
        assert_eq!(report.fraction_of_f32(prefill), Some(ops / 2e11));
        let batch = &report.measured.decode[1];
        // 1024 positions before the first of 65 steps, 33 more on average.
        assert_eq!(report.step_bytes(batch), report.work.step_bytes(8, 1057.0));
        let fraction = report.work.step_bytes(8, 1057.0) * 50.0 / 4e10;
        assert!(report.fraction_of_bandwidth(batch).is_some_and(|got| (got - fraction).abs() < 1e-12));
    }
}
