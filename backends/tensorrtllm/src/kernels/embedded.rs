//! Code that was compiled ahead (`cargo xtask kernels`) and became part of the library.

/// (module, machine code).
pub(super) type Image = (&'static str, &'static [u8]);

#[cfg(feature = "embedded-kernels")]
macro_rules! images {
    ($arch:literal: $($module:literal),+) => {{
        const IMAGES: &[Image] = &[$((
            $module,
            include_bytes!(concat!(env!("TRIREME_KERNELS"), "/", $arch, "/", $module, ".cubin")),
        )),+];
        IMAGES
    }};
}

/// All modules for this architecture, if they were compiled ahead.
#[cfg(feature = "embedded-kernels")]
pub(super) fn for_arch(arch: &str) -> Option<&'static [Image]> {
    macro_rules! of {
        ($name:literal) => {
            images!($name: "linear", "linear_sm90", "gate_up_sm90", "rows", "attention_decode", "attention_prefill", "attention_prefill_sm90", "state", "sample")
        };
    }
    match arch {
        "sm_80" => Some(of!("sm_80")),
        "sm_89" => Some(of!("sm_89")),
        "sm_90a" => Some(of!("sm_90a")),
        _ => None,
    }
}

#[cfg(not(feature = "embedded-kernels"))]
pub(super) fn for_arch(_: &str) -> Option<&'static [Image]> {
    None
}
