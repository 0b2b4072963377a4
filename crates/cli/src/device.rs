//! Which device computes, how much of its memory may be used, and which parts of a model go there.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use indicatif::HumanBytes;
use tangelo_formats::{Checkpoint, Config};
use tangelo_model::{Demand, Placement};
use tangelo_ops::attention::KvType;
use tangelo_ops::{Gpu, GpuError, Place};

/// Environment variable with the device to use where none is given.
const DEVICE_VARIABLE: &str = "TANGELO_DEVICE";
/// Memory of a device that is left alone unless a budget says otherwise: the display and the driver take some as they go.
const LEFT_FREE: u64 = 256 << 20;
/// Tokens of context that a placement makes room for if no context is asked for.
const CONTEXT_PLANNED: usize = 8192;

/// The device of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first GPU if there is one that can be used, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number.map(Device::Cuda).ok_or_else(|| "expected auto, cpu, cuda or cuda:N".to_string())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Options about the device.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, cuda or cuda:N [default: TANGELO_DEVICE, else auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Most memory of the GPU to use, such as 6GiB; what does not fit stays on the host
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    vram_budget: Option<u64>,
}

impl DeviceArgs {
    /// As if given on the command line.
    pub fn new(device: Device, vram_budget: Option<u64>) -> DeviceArgs {
        DeviceArgs { device: Some(device), vram_budget }
    }

    /// The GPU to use, if one is to be used.
    ///
    /// # Errors
    /// If a GPU is asked for by name and cannot be used. One that nobody asked for and cannot be used is left alone, with
    /// a line that says why.
    pub fn open(self) -> Result<Option<Gpu>> {
        let gpu = match self.device()? {
            Device::Cpu => return Ok(None),
            Device::Cuda(number) => Gpu::open(number)?,
            Device::Auto => {
                match Gpu::count().and_then(|count| (count > 0).then(|| Gpu::open(0)).transpose()) {
                    Ok(Some(gpu)) => gpu,
                    Ok(None) | Err(GpuError::NoDriver) => return Ok(None),
                    Err(error) => {
                        eprintln!("note: computing on the processor: {error}");
                        return Ok(None);
                    }
                }
            }
        };
        let budget = match self.vram_budget {
            Some(budget) => budget,
            None => gpu.free_bytes()?.0.saturating_sub(LEFT_FREE),
        };
        // A budget of zero would be none.
        gpu.set_budget(budget.max(1));
        Ok(Some(gpu))
    }

    /// Where the parts of a model go, for a context of `context` tokens or a usual one, read `chunk` tokens at a time.
    ///
    /// # Errors
    /// If a GPU is asked for by name and no part of the model fits.
    pub fn place(
        self,
        gpu: Option<&Gpu>,
        checkpoint: &Checkpoint,
        kv_type: KvType,
        context: Option<usize>,
        chunk: usize,
    ) -> Result<Placement> {
        let Some(gpu) = gpu else { return Ok(Placement::all_on(Place::Host)) };
        let config = checkpoint.config();
        let context = context_planned(context, config);
        let demand = Demand::of(checkpoint, kv_type, context, chunk);
        let budget = gpu.left_bytes();
        let placement = demand.fit(budget);
        let name = &gpu.properties().name;
        let whole = demand.on_device(Placement::all_on(Place::Device)).total();
        match placement.first_on_device {
            None => {
                let sentence = format!(
                    "{} of memory of {name} may be used, too little for any layer of this model, which takes {} there",
                    HumanBytes(budget),
                    HumanBytes(whole)
                );
                ensure!(!matches!(self.device()?, Device::Cuda(_)), "{sentence}: compute with --device cpu");
                eprintln!("note: computing on the processor: {sentence}");
            }
            Some(first) if first > 0 => eprintln!(
                "note: the first {first} of {} layers stay on the processor: {} of memory of {name} may be used, the \
                 model takes {} there",
                config.blocks.len(),
                HumanBytes(budget),
                HumanBytes(whole)
            ),
            Some(_) => {}
        }
        Ok(placement)
    }

    fn device(self) -> Result<Device> {
        match (self.device, std::env::var(DEVICE_VARIABLE)) {
            (Some(device), _) => Ok(device),
            (None, Ok(name)) => name.parse().map_err(|e| anyhow::anyhow!("{DEVICE_VARIABLE}={name}: {e}")),
            (None, Err(_)) => Ok(Device::Auto),
        }
    }
}

/// Tokens of context that there must be room for if `asked` are asked for.
pub fn context_planned(asked: Option<usize>, config: &Config) -> usize {
    asked.unwrap_or(CONTEXT_PLANNED).min(config.max_position_embeddings)
}

/// A number of bytes, with a unit or without.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => 0,
    };
    let number = digits.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0 && unit > 0);
    let bytes = number.map(|n| (n * unit as f64) as u64).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "expected a size such as 6GiB, 800M or 4e9".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_sizes_are_read() {
        let device = |text: &str| text.parse::<Device>();
        assert_eq!(device("auto"), Ok(Device::Auto));
        assert_eq!(device("cuda"), Ok(Device::Cuda(0)));
        assert_eq!(device("cuda:3"), Ok(Device::Cuda(3)));
        assert_eq!(Device::Cuda(3).to_string(), "cuda:3");
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_size("6GiB"), Ok(6 << 30));
        assert_eq!(parse_size("1.5k"), Ok(1536));
        assert_eq!(parse_size("4e9"), Ok(4_000_000_000));
        assert_eq!(parse_size("800MB"), Ok(800_000_000));
        for wrong in ["", "G", "-1", "0", "5 parsecs", "nan", "1e400"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
