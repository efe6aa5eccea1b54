//! Metrics that models show among the server's.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use trireme_sdk::{Counter, Error, Gauge, Histogram, Host, MetricSet, Result};

use crate::outgoing::lock;
use crate::wire::{Cursor, Malformed};

/// Metrics that a model may have; more is a mistake, as one for each request would be.
const MOST: usize = 10_000;
/// Bounds of a histogram that are looked at; the server allows fewer.
const MOST_BOUNDS: u32 = 1024;
const ADD: u8 = 0;
const SET: u8 = 1;
const OBSERVE: u8 = 2;

#[derive(Clone)]
pub(crate) enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// The metrics of a model and version, whichever of its processes counts. Histograms are shown as long as the model is there,
/// the others until the server ends.
pub(crate) struct Metrics {
    host: Host,
    ending: OnceLock<MetricSet>,
    known: Mutex<HashMap<Vec<u8>, Metric>>,
}

impl Metrics {
    pub(crate) fn new(host: &Host) -> Self {
        Self { host: host.clone(), ending: OnceLock::new(), known: Mutex::default() }
    }

    /// The metric that a process describes: kind, bounds, name, help, labels. The same description is the same metric.
    fn described(&self, description: &[u8]) -> std::result::Result<Result<Metric>, Malformed> {
        let mut known = lock(&self.known);
        if let Some(metric) = known.get(description) {
            return Ok(Ok(metric.clone()));
        }
        let mut cursor = Cursor::new(description);
        let (kind, count) = (cursor.u8()?, cursor.u32()?);
        if count > MOST_BOUNDS {
            return Ok(Err(Error::invalid(format!(
                "a histogram of {count} buckets; at most 64 are possible"
            ))));
        }
        let bounds = (0..count).map(|_| cursor.f64()).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut texts = Vec::new();
        while let Ok(length) = cursor.u32() {
            texts.push(cursor.text(length as usize)?);
        }
        let [name, help, labels @ ..] = texts.as_slice() else { return Err(Malformed) };
        let labels: Vec<(&str, &str)> = labels.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        if known.len() >= MOST {
            let text =
                format!("metric '{name}': the model has {MOST} metrics already; labels are no place for ids");
            return Ok(Err(Error::invalid(text)));
        }
        let made = match kind {
            0 => self.host.counter(name, help, &labels).map(Metric::Counter),
            1 => self.host.gauge(name, help, &labels).map(Metric::Gauge),
            2 => self.histogram(name, help, &labels, &bounds).map(Metric::Histogram),
            _ => return Err(Malformed),
        };
        if let Ok(metric) = &made {
            known.insert(description.to_vec(), metric.clone());
        }
        Ok(made)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Result<Histogram> {
        let set = match self.ending.get() {
            Some(set) => set,
            None => {
                let opened = self.host.metric_set()?;
                self.ending.get_or_init(|| opened)
            }
        };
        set.histogram(name, help, labels, bounds)
    }
}

/// The metrics that one process has asked for, by the numbers that it knows them by.
#[derive(Default)]
pub(crate) struct Numbered {
    numbers: HashMap<Vec<u8>, u32>,
    all: Vec<Metric>,
}

impl Numbered {
    /// The number of the metric that is described.
    pub(crate) fn number(
        &mut self,
        metrics: &Metrics,
        description: &[u8],
    ) -> std::result::Result<Result<u32>, Malformed> {
        if let Some(number) = self.numbers.get(description) {
            return Ok(Ok(*number));
        }
        Ok(metrics.described(description)?.map(|metric| {
            let number = self.all.len() as u32;
            self.all.push(metric);
            self.numbers.insert(description.to_vec(), number);
            number
        }))
    }

    /// What a counter or a gauge has come to.
    pub(crate) fn value(&self, number: u32) -> Option<f64> {
        match self.all.get(number as usize)? {
            Metric::Counter(counter) => Some(counter.value()),
            Metric::Gauge(gauge) => Some(gauge.value()),
            Metric::Histogram(_) => None,
        }
    }

    /// Counts, as a process says.
    ///
    /// # Errors
    /// There is no such metric, or it cannot be counted so.
    pub(crate) fn measure(
        &self,
        number: u32,
        operation: u8,
        value: f64,
    ) -> std::result::Result<(), Malformed> {
        match (self.all.get(number as usize).ok_or(Malformed)?, operation) {
            (Metric::Counter(counter), ADD) if value >= 0.0 => counter.add(value),
            (Metric::Gauge(gauge), ADD) => gauge.add(value),
            (Metric::Gauge(gauge), SET) => gauge.set(value),
            (Metric::Histogram(histogram), OBSERVE) => histogram.observe(value),
            _ => return Err(Malformed),
        }
        Ok(())
    }
}
