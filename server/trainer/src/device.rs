//! The device and the strategy of a spec.

use std::sync::OnceLock;

use pba_search::protocol::Report;
use pba_search::{DeviceChoice, SpecError, Strategy};
use serde_json::{Value, json};
use tch::{Cuda, Device};

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
    let refused = |allowed| Err(SpecError::new("device", format!("\"{choice}\""), allowed));
    match cuda::load() {
        Err(reason) => refused(format!("cpu, because CUDA is not available: {reason}")),
        Ok(()) if i64::from(number) < Cuda::device_count() => Ok(Device::Cuda(number as usize)),
        Ok(()) => refused(format!("auto, cpu, or cuda:N with N below {}", Cuda::device_count())),
    }
}

/// A device, and how members train on it.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    pub(crate) way: &'static Way,
}

impl Placement {
    /// The strategy on the device; the first of its table for `auto`.
    ///
    /// # Errors
    /// When the device cannot do it.
    pub(crate) fn new(device: Device, asked: Strategy) -> Result<Placement, SpecError> {
        let ways = if device.is_cuda() { gpu::WAYS } else { cpu::WAYS };
        let way = ways.iter().find(|way| [way.strategy, Strategy::Auto].contains(&asked));
        let way = way.ok_or_else(|| {
            let names: Vec<String> = ways.iter().map(|way| way.strategy.to_string()).collect();
            let allowed = format!("auto, {}; {asked} needs CUDA", names.join(", "));
            SpecError::new("strategy", format!("\"{asked}\""), allowed)
        })?;
        Ok(Placement { device, way })
    }

    /// Memory in use on the GPU, by all processes; none on a CPU, or when unknown.
    pub(crate) fn gpu_memory_used_bytes(self) -> Option<u64> {
        match self.device {
            Device::Cuda(number) => shim::gpu(number).ok().map(|gpu| gpu.memory_used_bytes()),
            _ => None,
        }
    }

    /// Where a run trains, for reports.
    pub(crate) fn report(self) -> Report {
        Report::Device {
            device: name(self.device),
            strategy: self.way.strategy.to_string(),
            threads: threads(),
        }
    }
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
