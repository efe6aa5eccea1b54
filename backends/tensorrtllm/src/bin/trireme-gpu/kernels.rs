//! `trireme-gpu kernels`: machine code of every module for every architecture, and no spilled register where it counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use trireme_tensorrtllm::kernels::{MODULES, compile, is_hot, nvrtc_is_there, spills};

use crate::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the code goes: OUT/ARCH/MODULE.cubin
    out: PathBuf,
    /// Architectures
    #[arg(long = "arch", value_name = "ARCH", default_values_t = ["sm_80", "sm_89", "sm_90a"].map(String::from))]
    archs: Vec<String>,
    /// Fail if a kernel that steps spend their time in spills registers on this architecture
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    strict: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nvrtc_is_there() {
        bail!("libnvrtc.so cannot be opened: put the folder of CUDA 13's NVRTC on LD_LIBRARY_PATH");
    }
    let mut spilled = Vec::new();
    for arch in &args.archs {
        let folder = args.out.join(arch);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make '{}'", folder.display()))?;
        let mut sizes = BTreeMap::new();
        for module in &MODULES {
            let (code, log) = compile(module, arch)?;
            let file = folder.join(format!("{}.cubin", module.name));
            fs::write(&file, &code).with_context(|| format!("cannot write '{}'", file.display()))?;
            for (kernel, bytes) in spills(&log) {
                let hot = is_hot(&kernel);
                say(&format!("{arch} {kernel}: {bytes} bytes spilled{}", if hot { ", hot" } else { "" }));
                if hot && *arch == args.strict {
                    spilled.push(kernel);
                }
            }
            sizes.insert(module.name, code.len());
        }
        let total: usize = sizes.values().sum();
        say(&format!("{arch}: {} modules, {} kB", sizes.len(), total / 1000));
    }
    if spilled.is_empty() { Ok(()) } else { bail!("registers are spilled in {}", spilled.join(", ")) }
}
