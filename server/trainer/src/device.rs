//! The device and the strategy of a spec.

use std::path::Path;
use std::sync::OnceLock;

use pba_search::protocol::Report;
use pba_search::{DeviceChoice, Precision, SpecError, Strategy, TrainingPlace};
use serde_json::{Value, json};
use tch::{Cuda, Device, Kind};

use crate::cpu::threads;
use crate::gpu::{cuda, shim};
use crate::members::Way;
use crate::{cpu, gpu};

/// What `auto` means in this process, where it is told.
static AUTO: OnceLock<DeviceChoice> = OnceLock::new();

/// Lets `auto` mean a device, as on a machine with several GPUs, each of which trains one job.
pub(crate) fn let_auto_be(device: DeviceChoice) {
    // A process does one job, so it is told once.
    let _ = AUTO.set(device);
}

/// The device for a choice.
///
/// # Errors
/// When it is not available, with the reason.
pub(crate) fn resolve(choice: DeviceChoice) -> Result<Device, SpecError> {
    let number = match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto => match AUTO.get() {
            Some(&chosen) if chosen != DeviceChoice::Auto => return resolve(chosen),
            _ => return Ok(if cuda::load().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
        },
        DeviceChoice::Cuda(number) => number,
    };
    let refused = |mut allowed: String| {
        if let Some(note) = idle_gpu(Path::new("/")) {
            allowed = format!("{allowed}; {note}");
        }
        Err(SpecError::new("device", format!("\"{choice}\""), allowed))
    };
    match cuda::load() {
        Err(reason) => refused(format!("cpu, because CUDA is not available: {reason}")),
        Ok(()) if i64::from(number) < Cuda::device_count() => Ok(Device::Cuda(number as usize)),
        Ok(()) => refused(format!("auto, cpu, or cuda:N with N below {}", Cuda::device_count())),
    }
}

/// Streams that the members share unless the spec says otherwise. Of some streams the activations stay in the
/// L2 cache of an H200, of sixteen they do not; `benches/gpu/run.sh` measures it, and has not yet.
const STREAMS: u32 = 4;

/// A device, and how members train on it.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    pub(crate) way: &'static Way,
    /// The type that convolutions compute with.
    pub(crate) compute: Kind,
    /// Streams that the members share.
    pub(crate) streams: usize,
    /// Whether cuDNN chooses its kernels by measuring them. Two runs may then choose differently.
    pub(crate) cudnn_measures: bool,
}

impl Placement {
    /// The strategy on the device; the first of its table that is there for `auto`.
    ///
    /// # Errors
    /// When the device cannot do it.
    pub(crate) fn new(
        device: Device,
        asked: Strategy,
        precision: Precision,
        streams: Option<u32>,
    ) -> Result<Placement, SpecError> {
        let compute = match precision {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Auto if device.is_cuda() => Kind::BFloat16,
            Precision::Auto => Kind::Float,
        };
        let ways = if device.is_cuda() { gpu::WAYS } else { cpu::WAYS };
        let is_meant = |way: &&Way| match asked {
            Strategy::Auto => way.strategy != Strategy::Graphs || shim::is_built(),
            _ => way.strategy == asked,
        };
        let way = ways.iter().find(is_meant);
        let way = way.ok_or_else(|| {
            let names: Vec<String> = ways.iter().map(|way| way.strategy.to_string()).collect();
            let mut allowed = format!("auto, {}; {asked} needs CUDA", names.join(", "));
            if let Some(note) = idle_gpu(Path::new("/")) {
                allowed = format!("{allowed}; {note}");
            }
            SpecError::new("strategy", format!("\"{asked}\""), allowed)
        })?;
        if let Some(streams) = streams.filter(|_| way.strategy != Strategy::Graphs) {
            let allowed = format!(
                "none here: members share streams with the strategy graphs only, not {}",
                way.strategy
            );
            return Err(SpecError::new("streams", streams, allowed));
        }
        let streams = streams.unwrap_or(STREAMS) as usize;
        Ok(Placement { device, way, compute, streams, cudnn_measures: false })
    }

    /// Memory in use on the GPU, by all processes; none on a CPU, or when unknown.
    pub(crate) fn gpu_memory_used_bytes(self) -> Option<u64> {
        match self.device {
            Device::Cuda(number) => shim::gpu(number).ok().map(|gpu| gpu.memory_used_bytes()),
            _ => None,
        }
    }

    /// Waits until the device has done what it was given.
    pub(crate) fn wait(self) {
        if let Device::Cuda(number) = self.device {
            Cuda::synchronize(number as i64);
        }
    }

    /// Where a run trains, for reports.
    pub(crate) fn report(self) -> Report {
        Report::Device(TrainingPlace {
            device: name(self.device),
            strategy: self.way.strategy.to_string(),
            precision: self.precision().to_string(),
            threads: threads(),
            note: if self.device.is_cuda() { None } else { idle_gpu(Path::new("/")) },
        })
    }

    pub(crate) fn precision(self) -> Precision {
        if self.compute == Kind::Float { Precision::Fp32 } else { Precision::Bf16 }
    }
}

/// How to use the NVIDIA GPU of this machine, whose files are below `root`; none if there is none, or if it can
/// be used.
pub(crate) fn idle_gpu(root: &Path) -> Option<String> {
    let is_there = ["proc/driver/nvidia/version", "dev/nvidiactl", "dev/nvidia0"].iter();
    if !is_there.into_iter().any(|path| root.join(path).exists()) {
        return None;
    }
    let reason = cuda::load().err()?;
    Some(format!(
        "there is an NVIDIA GPU here, but it cannot be used: {reason}. Start the server with --libtorch FOLDER (or \
         libtorch in pba.toml), the lib folder of a PyTorch {} with CUDA, such as \
         server/trainer/fetch-libtorch.sh --cuda makes",
        cuda::LIBTORCH
    ))
}

/// A device as in a spec.
pub(crate) fn name(device: Device) -> String {
    let choice = match device {
        Device::Cuda(number) => DeviceChoice::Cuda(number as u32),
        _ => DeviceChoice::Cpu,
    };
    choice.to_string()
}

/// Every device, as JSON.
pub(crate) fn list() -> Value {
    let loaded = cuda::load();
    let gpus = if loaded.is_ok() { Cuda::device_count() as usize } else { 0 };
    let mut devices = vec![json!({ "device": name(Device::Cpu), "threads": threads() })];
    devices.extend((0..gpus).map(|number| match shim::gpu(number) {
        Ok(gpu) => json!({
            "device": name(Device::Cuda(number)),
            "name": gpu.name,
            "memory_free_bytes": gpu.memory_free_bytes,
            "memory_total_bytes": gpu.memory_total_bytes,
        }),
        Err(error) => json!({ "device": name(Device::Cuda(number)), "error": format!("{error:#}") }),
    }));
    json!({ "libtorch": cuda::LIBTORCH, "devices": devices, "cuda_error": loaded.err() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_lies_idle_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(idle_gpu(root.path()), None);
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/nvidiactl"), "").unwrap();
        let note = idle_gpu(root.path());
        assert_eq!(note.is_some(), cuda::load().is_err());
        assert!(
            note.is_none_or(|note| note.contains("--libtorch FOLDER") && note.contains("libtorch_cuda.so"))
        );
    }

    #[test]
    fn precision_follows_the_device_unless_it_is_asked_for() {
        let on = |device, precision| Placement::new(device, Strategy::Sequential, precision, None).unwrap();
        assert_eq!(on(Device::Cpu, Precision::Auto).precision(), Precision::Fp32);
        assert_eq!(on(Device::Cuda(0), Precision::Auto).precision(), Precision::Bf16);
        assert_eq!(on(Device::Cuda(0), Precision::Fp32).precision(), Precision::Fp32);
        assert_eq!(on(Device::Cpu, Precision::Bf16).precision(), Precision::Bf16);
    }
}
