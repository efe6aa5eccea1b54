//! The products of up to 128 rows on Hopper, in every kind, form, size and number of parts: against double precision, each
//! element, and nothing written beside them.

use trireme_tensorrtllm::device::{Buffer, Grid, TensorMap, args};
use trireme_tensorrtllm::kernels::{
    Layout, RopeArgs, SQUARES, StreamArgs, StreamKind, StreamSize, Streams, can_share,
};

use crate::Outcome;
use crate::kernels::{Bench, f32s};
use crate::random::{bytes, from_bytes};

/// Seventeen steps of k, the last of them half empty: eight parts have two or three each.
const K: usize = 16 * 64 + 32;
/// Outputs of the largest product; with SiLU there are gate and up.
const OUTPUTS: usize = 2 * 352;
/// Elements between two rows that belong to nobody.
const GAP: usize = 8;
const EPS: f32 = 1e-5;
const BLOCK_TOKENS: usize = 32;
/// Blocks of a text.
const TABLE: usize = 3;
const MULTIPROCESSORS: usize = 132;

/// Where a product's norm comes from: sums of squares of each row, or nowhere.
const NORMS: [usize; 3] = [0, 1, 5];

/// Weights, rows, and all sums of both.
struct Numbers {
    weight: Buffer,
    x: Buffer,
    rows: usize,
    /// By row and output.
    dots: Vec<f64>,
    /// By row.
    squares: Vec<f32>,
    squares_at: Buffer,
}

/// One way to compute a product.
struct Case<'a> {
    size: (usize, StreamSize),
    kind: StreamKind,
    layout: Layout,
    n: usize,
    numbers: &'a Numbers,
    squares: usize,
}

impl Case<'_> {
    fn name(&self, what: &str) -> String {
        let (size, rows) = (self.size.1.rows, self.numbers.rows);
        let Layout { parts, form } = self.layout;
        format!("{what} of {:?}, {size}, {form:?} x{parts}, {rows} rows, {} x {K}", self.kind, self.n)
    }

    fn dot(&self, row: usize, output: usize) -> f64 {
        let sums = &self.numbers.squares[row * SQUARES..][..self.squares];
        let scale = match self.squares {
            0 => 1.0,
            _ => 1.0 / (sums.iter().map(|s| f64::from(*s)).sum::<f64>() / K as f64 + f64::from(EPS)).sqrt(),
        };
        self.numbers.dots[row * OUTPUTS + output] * scale
    }

    fn launch(&self, b: &Bench, streams: &Streams, arguments: StreamArgs) -> Outcome {
        let (Layout { parts, form }, n, numbers) = (self.layout, self.n, self.numbers);
        let all = if self.kind == StreamKind::SiluMul { 2 * n } else { n };
        let weight = TensorMap::of_rows(numbers.weight.at(0), K, all, 64)?;
        let x = TensorMap::of_rows(numbers.x.at(0), K, self.size.1.rows, self.size.1.rows)?;
        let arguments = StreamArgs {
            squares: if self.squares > 0 { numbers.squares_at.at(0) } else { 0 },
            num_squares: self.squares as i32,
            n: n as i32,
            k: K as i32,
            steps: K.div_ceil(64) as i32,
            rows: numbers.rows as i32,
            stride: (n + GAP) as i32,
            eps: EPS,
            ..arguments
        };
        let grid = Grid {
            blocks: (n.div_ceil(self.kind.outputs(form)), parts, 1),
            threads: form.threads(),
            shared: self.size.1.shared_bytes(self.kind, form),
            early: true,
            cluster: parts,
        };
        let function =
            streams.function(self.size.0, self.kind, form).ok_or_else(|| self.name("no kernel"))?;
        // SAFETY: the arguments are those of the `stream` kernels, the buffers have their sizes.
        unsafe { function.launch(&b.stream, grid, args![weight, x, arguments])? };
        Ok(())
    }

    /// What is wanted of each element of a matrix with gaps: no number where nothing may be written.
    fn matrix(&self, of: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let row = |row| (0..self.n + GAP).map(move |i| (row, i));
        let all = (0..=self.numbers.rows).flat_map(row);
        all.map(|(row, i)| if row < self.numbers.rows && i < self.n { of(row, i) } else { f64::NAN })
            .collect()
    }

    /// Bytes of such a matrix.
    fn bytes(&self, element: usize) -> usize {
        (self.numbers.rows + 1) * (self.n + GAP) * element
    }
}

/// `share`: how far an element may be off beside its own size. What was poison must be poison.
fn same(what: &str, seen: &[f32], wanted: &[f64], share: f64) -> Outcome {
    if seen.len() != wanted.len() {
        return Err(format!("{what}: {} elements, not {}", seen.len(), wanted.len()).into());
    }
    // A sum's terms are of size 1 whatever the sum is.
    let right = |seen: f32, wanted: f64| match wanted.is_nan() {
        true => seen.is_nan(),
        false => (f64::from(seen) - wanted).abs() <= wanted.abs() * share + 2e-5,
    };
    match seen.iter().zip(wanted).position(|(seen, wanted)| !right(*seen, *wanted)) {
        Some(i) => Err(format!("{what}: element {i} is {}, not {}", seen[i], wanted[i]).into()),
        None => Ok(()),
    }
}

/// Rounded to bf16 once.
const BF16: f64 = 1.0 / 250.0;
const F32: f64 = 1e-5;

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn i32_buffer(b: &Bench, values: &[usize]) -> Buffer {
    b.upload(&values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn run(b: &mut Bench) -> Outcome {
    let Some(streams) = b.kernels.streams else {
        println!("streams: this GPU has none");
        return Ok(());
    };
    let (w, weight) = b.bf16(OUTPUTS * K, 1.0 / (K as f32).sqrt());
    let mut weight = Some(weight);
    let mut cases = 0;
    for (number, size) in StreamSize::ALL.into_iter().enumerate() {
        let some = 1 + b.random.below(size.rows);
        for rows in [1, some, size.rows - 1, size.rows] {
            let values = b.random.bf16s(rows * K, 1.0);
            let mut x = bytes(&values);
            // Rows that are not asked for are no numbers: none of them may come into another.
            x.resize(size.rows * K * 2, 0xff);
            let values: Vec<f64> = values.iter().map(|v| f64::from(v.to_f32())).collect();
            let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
            let dots = values.chunks_exact(K).flat_map(|x| w.chunks_exact(K).map(move |w| dot(x, w)));
            let squares: Vec<f32> =
                (0..rows * SQUARES).map(|_| (K as f64 * (0.1 + b.random.uniform())) as f32).collect();
            let numbers = Numbers {
                weight: weight.take().ok_or("no weights")?,
                x: b.upload(&x),
                rows,
                dots: dots.collect(),
                squares_at: b.upload(&f32_bytes(&squares)),
                squares,
            };
            for kind in [StreamKind::Store, StreamKind::StoreF32, StreamKind::SiluMul, StreamKind::Add] {
                // Ends in the middle of a block, and of its half.
                let ns: &[usize] = if kind == StreamKind::SiluMul { &[352, 256] } else { &[320, 356, 384] };
                for (&n, squares) in ns.iter().zip(NORMS) {
                    for layout in layouts(kind, n) {
                        let case = Case { size: (number, size), kind, layout, n, numbers: &numbers, squares };
                        if kind == StreamKind::Add {
                            add(b, &streams, &case)?
                        } else {
                            store(b, &streams, &case)?
                        }
                        cases += 1;
                    }
                }
            }
            // Heads of queries and of keys, and how large one is.
            for (heads, squares) in [(3, 1, 64), (1, 1, 128)].into_iter().zip([1, 5]) {
                let n = (heads.0 + 2 * heads.1) * heads.2;
                for layout in layouts(StreamKind::Rope, n) {
                    for extras in [false, true] {
                        let kind = StreamKind::Rope;
                        let case = Case { size: (number, size), kind, layout, n, numbers: &numbers, squares };
                        rope(b, &streams, &case, heads, extras)?;
                        cases += 1;
                    }
                }
            }
            weight = Some(numbers.weight);
        }
    }
    println!("streams: {cases} cases");
    Ok(())
}

fn layouts(kind: StreamKind, n: usize) -> impl Iterator<Item = Layout> {
    Layout::all(kind).filter(move |l| {
        can_share(l.parts, l.form, n.div_ceil(kind.outputs(l.form)), K.div_ceil(64), MULTIPROCESSORS)
    })
}

fn store(b: &Bench, streams: &Streams, case: &Case<'_>) -> Outcome {
    let wide = case.kind == StreamKind::StoreF32;
    let out = b.poisoned(case.bytes(if wide { 4 } else { 2 }));
    case.launch(b, streams, StreamArgs { out: out.at(0), ..StreamArgs::default() })?;
    let wanted = case.matrix(|row, i| {
        let dot = case.dot(row, i);
        match case.kind {
            StreamKind::SiluMul => dot / (1.0 + (-dot).exp()) * case.dot(row, case.n + i),
            _ => dot,
        }
    });
    let seen = b.read(&out);
    let (seen, share) = if wide { (f32s(&seen), F32) } else { (from_bytes(&seen), BF16) };
    same(&case.name("output"), &seen, &wanted, share)
}

fn add(b: &mut Bench, streams: &Streams, case: &Case<'_>) -> Outcome {
    let (rows, n, width) = (case.numbers.rows, case.n, case.layout.form.width());
    let old: Vec<f32> = (0..rows * n).map(|_| b.random.normal()).collect();
    let (gains, gain) = b.bf16(n, 1.0);
    let before = case.matrix(|row, i| f64::from(old[row * n + i]));
    let out = b.upload(&f32_bytes(&before.iter().map(|v| *v as f32).collect::<Vec<_>>()));
    let (copy, squares) = (b.poisoned(case.bytes(2)), b.poisoned((rows + 1) * SQUARES * 4));
    let arguments = StreamArgs {
        out: out.at(0),
        copy: copy.at(0),
        gain: gain.at(0),
        new_squares: squares.at(0),
        ..StreamArgs::default()
    };
    case.launch(b, streams, arguments)?;
    let sum = |row: usize, i: usize| case.dot(row, i) + f64::from(old[row * n + i]);
    same(&case.name("sum"), &f32s(&b.read(&out)), &case.matrix(sum), F32)?;
    let gained = case.matrix(|row, i| sum(row, i) * gains[i]);
    same(&case.name("copy"), &from_bytes(&b.read(&copy)), &gained, BF16)?;
    let mut wanted = vec![f64::NAN; (rows + 1) * SQUARES];
    for row in 0..rows {
        for block in 0..n.div_ceil(width) {
            let outputs = block * width..n.min((block + 1) * width);
            wanted[row * SQUARES + block] = outputs.map(|i| sum(row, i).powi(2)).sum();
        }
    }
    same(&case.name("squares"), &f32s(&b.read(&squares)), &wanted, 2.0 * F32)
}

/// `extras`: with a bias, and a norm of each head.
fn rope(
    b: &mut Bench,
    streams: &Streams,
    case: &Case<'_>,
    (heads, kv_heads, dim): (usize, usize, usize),
    extras: bool,
) -> Outcome {
    let (rows, n, half) = (case.numbers.rows, case.n, dim / 2);
    let positions: Vec<usize> = (0..rows).map(|_| b.random.below(TABLE * BLOCK_TOKENS)).collect();
    // Rows of texts in another order, whose blocks go down.
    let slots: Vec<usize> = (0..rows).rev().collect();
    let blocks = rows * TABLE;
    let table: Vec<usize> = (0..blocks).rev().collect();
    let angles: Vec<(f32, f32)> = (0..TABLE * BLOCK_TOKENS * half)
        .map(|_| ((b.random.uniform() * std::f64::consts::TAU) as f32).sin_cos())
        .map(|(sin, cos)| (cos, sin))
        .collect();
    let angles_at = b.upload(&f32_bytes(&angles.iter().flat_map(|a| [a.0, a.1]).collect::<Vec<_>>()));
    let (bias, bias_at) = b.bf16(n, 1.0);
    let (q_norm, q_norm_at) = b.bf16(dim, 1.0);
    let (k_norm, k_norm_at) = b.bf16(dim, 1.0);
    let some = |buffer: &Buffer| if extras { buffer.at(0) } else { 0 };
    let (keys, values) = {
        let size = blocks * kv_heads * BLOCK_TOKENS * dim;
        (b.poisoned(size * 2), b.poisoned(size * 2))
    };
    let out = b.poisoned(case.bytes(2));
    let [row_slot, row_position, tables] = [&slots, &positions, &table].map(|list| i32_buffer(b, list));
    let args = RopeArgs {
        bias: some(&bias_at),
        q_norm: some(&q_norm_at),
        k_norm: some(&k_norm_at),
        angles: angles_at.at(0),
        row_slot: row_slot.at(0),
        row_position: row_position.at(0),
        tables: tables.at(0),
        keys: keys.at(0),
        values: values.at(0),
        table_width: TABLE as i32,
        block_tokens: BLOCK_TOKENS as i32,
        q_heads: heads as i32,
        kv_heads: kv_heads as i32,
        head_dim: dim as i32,
        eps: EPS,
    };
    case.launch(b, streams, StreamArgs { out: out.at(0), rope: args, ..StreamArgs::default() })?;
    let head = |row: usize, head: usize| -> Vec<f64> {
        let at = |i: usize| case.dot(row, head * dim + i) + if extras { bias[head * dim + i] } else { 0.0 };
        let mut v: Vec<f64> = (0..dim).map(at).collect();
        if head >= heads + kv_heads {
            return v;
        }
        if extras {
            let norm = if head < heads { &q_norm } else { &k_norm };
            let scale = 1.0 / (v.iter().map(|v| v * v).sum::<f64>() / dim as f64 + f64::from(EPS)).sqrt();
            v.iter_mut().zip(norm).for_each(|(v, norm)| *v *= scale * norm);
        }
        let turned = |i: usize| {
            let (cos, sin) = angles[positions[row] * half + i % half];
            let (cos, sin) = (f64::from(cos), f64::from(sin));
            if i < half { v[i] * cos - v[i + half] * sin } else { v[i] * cos + v[i - half] * sin }
        };
        (0..dim).map(turned).collect()
    };
    let mut queries = vec![f64::NAN; (rows + 1) * (n + GAP)];
    let mut kept = [keys, values].map(|buffer| (from_bytes(&b.read(&buffer)), Vec::new()));
    kept.iter_mut().for_each(|(seen, wanted)| wanted.resize(seen.len(), f64::NAN));
    for row in 0..rows {
        for q in 0..heads {
            queries[row * (n + GAP) + q * dim..][..dim].copy_from_slice(&head(row, q));
        }
        let position = positions[row];
        let block = table[slots[row] * TABLE + position / BLOCK_TOKENS];
        for kv in 0..kv_heads {
            let at = ((block * kv_heads + kv) * BLOCK_TOKENS + position % BLOCK_TOKENS) * dim;
            for (what, (_, wanted)) in kept.iter_mut().enumerate() {
                wanted[at..at + dim].copy_from_slice(&head(row, heads + what * kv_heads + kv));
            }
        }
    }
    same(&case.name("queries"), &from_bytes(&b.read(&out)), &queries, BF16)?;
    for (what, (seen, wanted)) in ["keys", "values"].into_iter().zip(&kept) {
        same(&case.name(what), seen, wanted, BF16)?;
    }
    Ok(())
}
