/// Which metrics are kept: `--metrics-config` and its neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricOptions {
    /// The metrics of the machine's CPUs and memory.
    pub cpu: bool,
    /// The sums of latencies.
    pub counters: bool,
    /// The quantiles of latencies over the last minute.
    pub summaries: bool,
    /// Which quantiles, from 0 to 1.
    pub quantiles: Vec<f64>,
    /// How long decoupled models take for their first response.
    pub histograms: bool,
}

impl Default for MetricOptions {
    fn default() -> Self {
        Self {
            cpu: false,
            counters: true,
            summaries: false,
            quantiles: vec![0.5, 0.9, 0.95, 0.99, 0.999],
            histograms: false,
        }
    }
}

impl MetricOptions {
    /// Takes one `KEY=VALUE` of `--metrics-config`; false for a key that is not known.
    ///
    /// # Errors
    /// A value that its key cannot have.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let truth = || match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("'{key}' is true or false, not '{value}'")),
        };
        match key {
            "counter_latencies" => self.counters = truth()?,
            "summary_latencies" => self.summaries = truth()?,
            "histogram_latencies" => self.histograms = truth()?,
            "summary_quantiles" => self.quantiles = quantiles(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `QUANTILE:ERROR,…`. The error has no use here: quantiles are exact to a sixty-fourth of the value.
fn quantiles(text: &str) -> Result<Vec<f64>, String> {
    let one = |pair: &str| {
        let (quantile, error) = pair.split_once(':')?;
        let share = |text: &str| text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        share(error)?;
        share(quantile)
    };
    let all: Option<Vec<f64>> = text.split(',').map(one).collect();
    all.ok_or_else(|| {
        format!("'summary_quantiles' is <quantile>:<error>,… with numbers from 0 to 1, not '{text}'")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let mut options = MetricOptions::default();
        assert_eq!(options.set("summary_latencies", "true"), Ok(true));
        assert_eq!(options.set("summary_quantiles", "0.5:0.05,0.25:0.01"), Ok(true));
        assert_eq!(options.set("counter_latencies", "false"), Ok(true));
        assert_eq!(options.set("anything", "else"), Ok(false));
        let expected = MetricOptions {
            counters: false,
            summaries: true,
            quantiles: vec![0.5, 0.25],
            ..MetricOptions::default()
        };
        assert_eq!(options, expected);
        for (key, value) in
            [("summary_latencies", "yes"), ("summary_quantiles", "0.5"), ("summary_quantiles", "2:0.1")]
        {
            assert!(options.set(key, value).is_err(), "{key}={value}");
        }
    }
}
