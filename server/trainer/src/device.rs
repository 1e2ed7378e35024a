//! Which device a spec means.

use std::thread;

use pba_search::{DeviceChoice, SpecError, Strategy};
use serde_json::{Value, json};
use tch::{Cuda, Device};

use crate::cuda;

/// The device for a choice.
///
/// # Errors
/// When it is not there; says why.
pub(crate) fn resolve(choice: DeviceChoice) -> Result<Device, SpecError> {
    let loaded = match choice {
        DeviceChoice::Cpu => return Ok(Device::Cpu),
        DeviceChoice::Auto | DeviceChoice::Cuda(_) => cuda::load(),
    };
    match (choice, loaded) {
        (DeviceChoice::Auto, Err(_)) => Ok(Device::Cpu),
        (DeviceChoice::Auto, Ok(())) => Ok(Device::Cuda(0)),
        (_, Err(reason)) => {
            let allowed = format!("cpu, because CUDA is not available: {reason}");
            Err(SpecError::new("device", format!("\"{choice}\""), allowed))
        }
        (_, Ok(())) => match choice {
            DeviceChoice::Cuda(number) if i64::from(number) < Cuda::device_count() => {
                Ok(Device::Cuda(number as usize))
            }
            _ => {
                let allowed = format!("auto, cpu, or cuda:N with N below {}", Cuda::device_count());
                Err(SpecError::new("device", format!("\"{choice}\""), allowed))
            }
        },
    }
}

/// The strategy for a device: sequential on a CPU, where members share the cores; on a GPU
/// stacked, until the benchmark has been run on one.
///
/// # Errors
/// When the device cannot do it.
pub(crate) fn strategy(strategy: Strategy, device: Device) -> Result<Strategy, SpecError> {
    match strategy {
        Strategy::Auto if device.is_cuda() => Ok(Strategy::Stacked),
        Strategy::Auto => Ok(Strategy::Sequential),
        Strategy::Graphs if !device.is_cuda() => {
            Err(SpecError::new("strategy", "\"graphs\"", "auto, sequential, stacked; graphs needs CUDA"))
        }
        strategy => Ok(strategy),
    }
}

/// A device as in a spec.
pub(crate) fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// CPU threads to work with.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Every device, as JSON.
pub(crate) fn list() -> Value {
    let mut devices = vec![json!({ "device": "cpu", "threads": threads() })];
    let loaded = cuda::load();
    if loaded.is_ok() {
        for number in 0..Cuda::device_count() as usize {
            devices.push(match cuda::gpu(number) {
                Ok(gpu) => json!({
                    "device": format!("cuda:{number}"),
                    "name": gpu.name,
                    "memory_free_bytes": gpu.memory_free_bytes,
                    "memory_total_bytes": gpu.memory_total_bytes,
                }),
                Err(error) => json!({ "device": format!("cuda:{number}"), "error": format!("{error:#}") }),
            });
        }
    }
    json!({ "libtorch": cuda::LIBTORCH, "devices": devices, "cuda_error": loaded.err() })
}
