//! The GPUs' own gauges among the server's metrics, under the names that Triton's users know.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use nvml_wrapper::{Device, Nvml};
use trireme_sdk::{Counter, Gauge, Host};

/// Between two readings: tritonserver's default.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is shown of a GPU.
struct Shown {
    uuid: String,
    gauges: BTreeMap<&'static str, Gauge>,
    energy: Option<Counter>,
    /// Millijoules that were counted already.
    counted: Option<u64>,
}

type Reading = fn(&Device<'_>) -> Option<f64>;

/// Name, help, and how it is read; what a GPU cannot tell is not shown.
const GAUGES: [(&str, &str, Reading); 5] = [
    ("nv_gpu_utilization", "Share of the time in which the GPU ran kernels, 0 to 1.", |d| {
        Some(f64::from(d.utilization_rates().ok()?.gpu) / 100.0)
    }),
    ("nv_gpu_memory_total_bytes", "Bytes of memory of the GPU.", |d| {
        Some(d.memory_info().ok()?.total as f64)
    }),
    ("nv_gpu_memory_used_bytes", "Bytes of the GPU's memory that are taken, by any process.", |d| {
        Some(d.memory_info().ok()?.used as f64)
    }),
    ("nv_gpu_power_usage", "Watts that the GPU draws.", |d| Some(f64::from(d.power_usage().ok()?) / 1e3)),
    ("nv_gpu_power_limit", "Watts that the GPU may draw.", |d| {
        Some(f64::from(d.enforced_power_limit().ok()?) / 1e3)
    }),
];

/// Starts a thread that reads them until the process ends. Without NVML there are none, which is said once.
pub(super) fn start(host: &Host) {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(error) => return host.warn(format!("no nv_gpu_* metrics: NVML cannot be used: {error}")),
    };
    let told = host.clone();
    let run = move || {
        let (_open, never) = mpsc::channel::<()>();
        let mut shown = register(&nvml, &told);
        loop {
            for gpu in &mut shown {
                read(&nvml, gpu);
            }
            // Nobody sends: it only waits.
            let _ = never.recv_timeout(INTERVAL);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("gpu-metrics".to_owned()).spawn(run) {
        host.warn(format!("no nv_gpu_* metrics: no thread: {error}"));
    }
}

fn register(nvml: &Nvml, host: &Host) -> Vec<Shown> {
    let count = nvml.device_count().unwrap_or(0);
    let one = |index| {
        let device = nvml.device_by_index(index).ok()?;
        let uuid = device.uuid().ok()?;
        let labels = [("gpu_uuid", uuid.as_str())];
        let gauges = GAUGES.iter().filter(|(_, _, reading)| reading(&device).is_some());
        let gauges =
            gauges.filter_map(|(name, help, _)| Some((*name, host.gauge(name, help, &labels).ok()?)));
        let gauges = gauges.collect();
        let energy = device.total_energy_consumption().is_ok().then(|| {
            let help = "Joules that the GPU has used since the backend was loaded.";
            host.counter("nv_energy_consumption", help, &labels).ok()
        });
        Some(Shown { uuid, gauges, energy: energy.flatten(), counted: None })
    };
    (0..count).filter_map(one).collect()
}

fn read(nvml: &Nvml, gpu: &mut Shown) {
    let Ok(device) = nvml.device_by_uuid(gpu.uuid.as_str()) else { return };
    for (name, _, reading) in &GAUGES {
        if let (Some(gauge), Some(value)) = (gpu.gauges.get(name), reading(&device)) {
            gauge.set(value);
        }
    }
    if let (Some(energy), Ok(now)) = (&gpu.energy, device.total_energy_consumption()) {
        energy.add(now.saturating_sub(gpu.counted.unwrap_or(now)) as f64 / 1e3);
        gpu.counted = Some(now);
    }
}
