//! Choices that the clock makes while a model loads, and those that a table has from an earlier load.

use std::time::Duration;

use super::forward::{Net, Rows};
use super::memory_plan::logits_stride;
use super::profile::Part;
use crate::device::{Buffer, Capture, Device, Event, Stream};
use crate::error::{CudaError, Result};
use crate::gemm::{Kind, Product};
use crate::kernels::{Layout, Place, StreamSize};
use crate::tuning::{LayoutEntry, Products, Session, Table, Way, WayEntry, fastest, steady};

/// How often each layout runs when they are timed, over how many layers; the fastest run counts.
const ROUNDS: usize = 5;
const TIMED_LAYERS: usize = 4;

/// The same of the ways that a step may take: fewer, there are many sizes.
const WAY_ROUNDS: usize = 3;

/// What choosing needs beside the model.
pub(super) struct Tuner<'a> {
    pub(super) device: &'a Device,
    pub(super) stream: &'a Stream,
    /// Whether steps will run as graphs, and so must what is timed.
    pub(super) graphs: bool,
    pub(super) session: Session<'a>,
    /// Time for ways, and what has gone of it.
    pub(super) ways_within: Duration,
    pub(super) ways_took: Duration,
}

impl Net {
    /// Chooses cuBLASLt's algorithms for steps of so many rows. What lies in the activations is overwritten.
    pub(super) fn tune(&mut self, tuner: &mut Tuner<'_>, rows: usize, samples: usize) -> Result<()> {
        let c = &self.weights.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let (q, qkv) = (c.num_heads * c.head_dim, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
        let (w, b) = (self.weights.layers[0], &self.buffers);
        let p = |kind, weight, x: &Buffer, out: &Buffer, n, k| Product {
            kind,
            weight,
            x: x.at(0),
            out: out.at(0),
            m: rows,
            n,
            k,
            stride: n,
        };
        let mut products = Vec::new();
        if self.has(Way::Library, rows) {
            products.extend([
                p(Kind::Store, w.qkv, &b.normed, &b.qkv, qkv, hidden),
                p(Kind::Add, w.o, &b.attended, &b.residual, hidden, q),
                p(Kind::Store, w.gate_up, &b.normed, &b.gate_up, 2 * inter, hidden),
                p(Kind::Add, w.down, &b.gated, &b.residual, hidden, inter),
            ]);
        }
        if samples > 0 && self.has(Way::Library, samples) {
            products.push(Product {
                m: samples,
                stride: logits_stride(c.vocab_size),
                ..p(Kind::StoreF32, self.weights.head, &b.gathered, &b.logits, c.vocab_size, hidden)
            });
        }
        for product in products {
            // SAFETY: all matrices have the sizes of the model.
            unsafe { self.gemm.tune(tuner.device, tuner.stream, &product, &mut tuner.session)? };
        }
        Ok(())
    }

    /// Chooses the layouts of all own products for steps of `rows`. What lies in the activations is overwritten.
    pub(super) fn tune_streams(&mut self, tuner: &mut Tuner<'_>, rows: &Rows) -> Result<()> {
        let Some((number, size)) = StreamSize::of(rows.count).filter(|_| self.has(Way::Stream, rows.count))
        else {
            return Ok(());
        };
        // From the one whose layouts differ most.
        for place in Place::ALL.into_iter().rev() {
            let layout = match tuner.session.find(|table| table.layout(size.rows, place)) {
                Some(layout) => Some(layout),
                None => self.time_layouts(tuner, rows, place, (number, size))?,
            };
            if let (Some(layout), Some(maps)) = (layout, &mut self.maps) {
                maps.layouts[number][place as usize] = layout;
            }
        }
        Ok(())
    }

    /// The fastest layout of a product within its layer: what stands before and behind it changes how long it takes.
    fn time_layouts(
        &mut self,
        tuner: &mut Tuner<'_>,
        rows: &Rows,
        place: Place,
        (number, size): (usize, StreamSize),
    ) -> Result<Option<Layout>> {
        let product = self.layer_product(rows, 0, place);
        let layouts = self.layouts(&product);
        let before = self.maps.as_ref().map(|maps| maps.layouts[number][place as usize]);
        let layers = TIMED_LAYERS.min(self.weights.layers.len());
        let times = self.race(tuner, &layouts, ROUNDS, |net, layout| {
            if let Some(maps) = &mut net.maps {
                maps.layouts[number][place as usize] = layout;
            }
            net.first_layers(tuner.stream, rows, layers)
        })?;
        let Some((layout, microseconds)) = fastest(times.iter().copied()) else { return Ok(before) };
        let (n, k) = (product.n, product.k);
        tuner.session.timed(steady(&times), |table| {
            table.put_layout(LayoutEntry { rows: size.rows, place, n, k, layout, microseconds });
        });
        Ok(Some(layout))
    }

    /// Chooses how steps that are padded to these rows compute their products, where there are several ways and there is time
    /// to time them: else they take the way of the next larger size. What lies in the activations is overwritten. Rows
    /// without slots stand for those of prompts, of which the layers' products alone are timed.
    pub(super) fn tune_ways(&mut self, tuner: &mut Tuner<'_>, rows: &Rows) -> Result<()> {
        // Nothing has gone of it before the first size.
        let may_time = tuner.ways_took.is_zero() || tuner.ways_took < tuner.ways_within;
        let of_step: &[Products] =
            if rows.slots == 0 { &[Products::Prompts] } else { &[Products::Layers, Products::Head] };
        for &products in of_step {
            let ways = self.candidates(products, rows.count);
            if ways.len() < 2 {
                continue;
            }
            let kept = |table: &Table| {
                let kept = table.ways(products, rows.count)?;
                ways.iter().map(|way| kept.iter().find(|(other, _)| other == way).copied()).collect()
            };
            let found: Option<Vec<(Way, f32)>> =
                if may_time { tuner.session.find(kept) } else { tuner.session.look(kept) };
            let times = match found {
                Some(times) => times,
                None if !may_time => {
                    tuner.session.left();
                    continue;
                }
                None => {
                    // The GPU's clock: nothing is queued before the first event, so it stands for the host's time, too.
                    let (begin, end) = (Event::new(tuner.device)?, Event::new(tuner.device)?);
                    begin.record(tuner.stream)?;
                    let timed = self.time_ways(tuner, rows, products, &ways);
                    self.ways.force(None);
                    let runs = timed?;
                    end.record(tuner.stream)?;
                    end.wait()?;
                    tuner.ways_took +=
                        Duration::try_from_secs_f32(end.since(&begin)? / 1e3).unwrap_or_default();
                    let best = |way: Way| fastest(runs.iter().copied().filter(|(other, _)| *other == way));
                    let times: Vec<_> = ways.iter().filter_map(|way| best(*way)).collect();
                    tuner.session.timed(steady(&runs), |table| {
                        table.put_ways(WayEntry { rows: rows.count, products, times: times.clone() });
                    });
                    times
                }
            };
            if let Some((way, _)) = fastest(times) {
                self.ways.choose(products, rows.count, way);
            }
        }
        Ok(())
    }

    /// The products of the first layers, enough of them that no weights are in a cache.
    fn products(&mut self, stream: &Stream, rows: &Rows) -> Result<()> {
        for layer in 0..self.weights.config.num_layers.min(TIMED_LAYERS) {
            for part in [Part::Qkv, Part::Output, Part::GateUp, Part::Down] {
                self.part(stream, rows, layer, part)?;
            }
        }
        Ok(())
    }

    /// Runs of each way, microseconds.
    fn time_ways(
        &mut self,
        tuner: &Tuner<'_>,
        rows: &Rows,
        products: Products,
        ways: &[Way],
    ) -> Result<Vec<(Way, f32)>> {
        self.race(tuner, ways, WAY_ROUNDS, |net, way| {
            // Steps ask for the way of their layers.
            let asked = if products == Products::Head { Products::Head } else { Products::Layers };
            net.ways.force(Some((asked, way)));
            match products {
                Products::Prompts => net.products(tuner.stream, rows),
                Products::Layers => net.layers(tuner.stream, rows),
                Products::Head => net.logits(tuner.stream, 0, rows.count),
            }
        })
    }

    /// Runs of each candidate, microseconds: as graphs, if steps will be. In turns: the GPU's clocks rise while the first ones
    /// run, and its memory has others' moments.
    fn race<T: Copy>(
        &mut self,
        tuner: &Tuner<'_>,
        candidates: &[T],
        rounds: usize,
        mut run: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<Vec<(T, f32)>> {
        let (device, stream) = (tuner.device, tuner.stream);
        let mut recorded = Vec::new();
        for &candidate in candidates {
            // A first time outside of a recording: it may load code.
            run(self, candidate)?;
            stream.synchronize()?;
            if tuner.graphs {
                let capture = Capture::begin(stream)?;
                run(self, candidate)?;
                match capture.finish(device) {
                    Ok(graph) => recorded.push(graph),
                    // No memory for a graph: then steps will be launched one by one, and so are these.
                    Err(CudaError::Memory(_)) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if recorded.len() < candidates.len() {
            recorded.clear();
        }
        let (start, end) = (Event::new(device)?, Event::new(device)?);
        let mut times = Vec::new();
        for (i, &candidate) in (0..rounds).flat_map(|_| candidates.iter().enumerate()) {
            start.record(stream)?;
            match recorded.get(i) {
                // SAFETY: all that it names belongs to this model, which outlives it.
                Some(graph) => unsafe { graph.launch(stream)? },
                None => run(self, candidate)?,
            }
            end.record(stream)?;
            end.wait()?;
            times.push((candidate, end.since(&start)? * 1e3));
        }
        Ok(times)
    }
}
