//! Kernels on their own, on random inputs, against double precision. Outputs are poisoned before each run.

use trireme_tensorrtllm::device::{Buffer, Device, Function, Grid, Stream, args};
use trireme_tensorrtllm::kernels::{FewRows, Kernels, few_rows_threads};

use crate::Outcome;
use crate::random::{Random, bytes, distance, from_bytes};

pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) stream: Stream,
    pub(crate) kernels: Kernels,
    pub(crate) random: Random,
}

impl Bench {
    pub(crate) fn upload(&self, data: &[u8]) -> Buffer {
        let buffer = Buffer::new(&self.device, data.len()).unwrap();
        buffer.write(0, data, &self.stream).unwrap();
        buffer
    }

    /// Memory of NaNs.
    pub(crate) fn poisoned(&self, len: usize) -> Buffer {
        self.upload(&vec![0xff; len])
    }

    pub(crate) fn bf16(&mut self, n: usize, deviation: f32) -> (Vec<f64>, Buffer) {
        let values = self.random.bf16s(n, deviation);
        (values.iter().map(|v| f64::from(v.to_f32())).collect(), self.upload(&bytes(&values)))
    }

    pub(crate) fn read(&self, buffer: &Buffer) -> Vec<u8> {
        let mut out = vec![0; buffer.bytes()];
        buffer.read(0, &mut out, &self.stream).unwrap();
        out
    }
}

fn grid(blocks: (usize, usize, usize), threads: usize) -> Grid {
    Grid { blocks, threads, early: true, ..Grid::default() }
}

impl Bench {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let device = Device::open(0)?;
        let stream = Stream::new(&device)?;
        let kernels = Kernels::load(&device, 128, None)?;
        println!("GPU: {}, compute capability {:?}", device.name, device.capability);
        Ok(Self { device, stream, kernels, random: Random(1) })
    }
}

/// Products of many rows alone: what the sanitizer can be given.
pub(crate) fn tiles() -> Outcome {
    crate::tiles::run(&mut Bench::new()?)
}

/// Products of few rows on Hopper alone, likewise.
pub(crate) fn streams() -> Outcome {
    crate::streams::run(&mut Bench::new()?)
}

pub(crate) fn run() -> Outcome {
    let mut b = Bench::new()?;
    let few = b.kernels.few;
    for (n, k) in [(16, 32), (48, 64), (1003, 576), (4096, 4096), (512, 14_336), (6144, 2048)] {
        for rows in [1, 2, 7, 8, 9, 15, 16] {
            skinny(&mut b, &few, (n, k), rows)?;
        }
    }
    for (rows, size) in [(1, 64), (5, 576), (33, 4096), (3, 16_384)] {
        norm_and_silu(&mut b, rows, size)?;
    }
    crate::tiles::run(&mut b)
}

pub(crate) fn within(what: &str, out: &[f32], reference: &[f64], limit: f64) -> Outcome {
    let d = distance(out, reference);
    if d < limit { Ok(()) } else { Err(format!("{what}: distance {d:.2e}, limit {limit:.0e}").into()) }
}

pub(crate) fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Products of few rows with everything that is fused around them; and a row's result in any company.
fn skinny(b: &mut Bench, few: &FewRows, (n, k): (usize, usize), rows: usize) -> Outcome {
    let (w, weight) = b.bf16(n * k, 1.0 / (k as f32).sqrt());
    let (x, input) = b.bf16(rows * k, 1.0);
    let (g, gain) = b.bf16(k, 1.0);
    let (old, _) = b.bf16(rows * n, 1.0);
    let old_bytes: Vec<u8> = old.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let copy = b.poisoned(rows * n * 2);
    let eps = 1e-5f32;
    let dots = |norm: bool, outputs: usize| -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks_exact(k) {
            let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / k as f64 + f64::from(eps)).sqrt();
            for w in w.chunks_exact(k).take(outputs) {
                let terms = w.iter().zip(x).zip(&g);
                out.push(terms.map(|((w, x), g)| if norm { w * x * g * scale } else { w * x }).sum());
            }
        }
        out
    };
    let wide = usize::from(rows > 8);
    let run = |function: Function, out: &Buffer, norm: u64, n: usize, outputs: usize, rows: usize| {
        let (weight, x, out, copy) = (weight.at(0), input.at(0), out.at(0), copy.at(0));
        let (n, k, r, late) = (n as i32, k as i32, rows as i32, 0i32);
        let tiles = (n as usize).div_ceil(outputs);
        // SAFETY: the arguments are those of the kernel, the buffers have its sizes.
        unsafe {
            function.launch(
                &b.stream,
                grid((tiles, 1, 1), few_rows_threads(norm == 0)),
                args![weight, x, norm, eps, out, copy, n, k, r, n, late],
            )
        }
    };
    let name = |what: &str| format!("{what} {n} x {k}, {rows} rows");

    let out = b.poisoned(rows * n * 2);
    run(few.norm[wide], &out, gain.at(0), n, 16, rows)?;
    let whole = b.read(&out);
    within(&name("norm"), &from_bytes(&whole), &dots(true, n), 8e-3)?;
    // The first row alone gives the same bits.
    let alone = b.poisoned(n * 2);
    run(few.norm[0], &alone, gain.at(0), n, 16, 1)?;
    if b.read(&alone) != whole[..n * 2] {
        return Err(format!("{}: a row's bits depend on its company", name("norm")).into());
    }

    let out = b.poisoned(rows * n * 4);
    run(few.norm_f32[wide], &out, gain.at(0), n, 16, rows)?;
    within(&name("norm f32"), &f32s(&b.read(&out)), &dots(true, n), 6e-3)?;

    let out = b.upload(&old_bytes);
    run(few.add[wide], &out, 0, n, 16, rows)?;
    let sums: Vec<f64> = dots(false, n).iter().zip(&old).map(|(d, o)| d + o).collect();
    within(&name("add"), &f32s(&b.read(&out)), &sums, 1e-5)?;
    within(&name("its copy"), &from_bytes(&b.read(&copy)), &sums, 4e-3)?;

    if n.is_multiple_of(2) && (n / 2).is_multiple_of(8) {
        let half = n / 2;
        let out = b.poisoned(rows * half * 2);
        run(few.norm_silu_mul[wide], &out, gain.at(0), half, 8, rows)?;
        let all = dots(true, n);
        let mut wanted = Vec::new();
        for row in all.chunks_exact(n) {
            wanted.extend((0..half).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[half + i]));
        }
        within(&name("silu"), &from_bytes(&b.read(&out)), &wanted, 1.5e-2)?;
    }
    Ok(())
}

fn norm_and_silu(b: &mut Bench, rows: usize, size: usize) -> Outcome {
    let (x, input) = b.bf16(rows * size, 2.0);
    let wide = b.upload(&x.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect::<Vec<_>>());
    let (g, gain) = b.bf16(size, 1.0);
    let out = b.poisoned(rows * size * 2);
    let (eps, int_size, none) = (1e-6f32, size as i32, 0u64);
    let (from, weight, to) = (wide.at(0), gain.at(0), out.at(0));
    // SAFETY: the arguments are those of `rms_norm`.
    unsafe {
        b.kernels.rms_norm.launch(
            &b.stream,
            grid((rows, 1, 1), 256),
            args![from, weight, none, to, int_size, eps],
        )?;
    }
    let mut wanted = Vec::new();
    for x in x.chunks_exact(size) {
        let scale = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / size as f64 + 1e-6).sqrt();
        wanted.extend(x.iter().zip(&g).map(|(x, g)| x * scale * g));
    }
    within("rms_norm", &from_bytes(&b.read(&out)), &wanted, 3e-3)?;

    let half = size / 2;
    let out = b.poisoned(rows * half * 2);
    let (from, to, int_half) = (input.at(0), out.at(0), half as i32);
    let blocks = ((half / 8).div_ceil(256), rows, 1);
    // SAFETY: the arguments are those of `silu_mul`.
    unsafe { b.kernels.silu_mul.launch(&b.stream, grid(blocks, 256), args![from, to, int_half])? };
    let mut wanted = Vec::new();
    for x in x.chunks_exact(size) {
        wanted.extend((0..half).map(|i| x[i] / (1.0 + (-x[i]).exp()) * x[half + i]));
    }
    within("silu_mul", &from_bytes(&b.read(&out)), &wanted, 5e-3)
}
