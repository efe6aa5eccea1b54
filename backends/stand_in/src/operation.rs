use std::time::Duration;

use trireme_sdk::{Error, ModelContext, Result};

/// The file that a framework would load, by platform.
const FILES: [(&str, &str); 6] = [
    ("tensorflow_graphdef", "model.graphdef"),
    ("tensorflow_savedmodel", "model.savedmodel"),
    ("onnxruntime_onnx", "model.onnx"),
    ("pytorch_libtorch", "model.pt"),
    ("tensorrt_plan", "model.plan"),
    ("openvino", "model.xml"),
];

/// What the suites append to a Python model to make it slow to load: `time.sleep(N)` in `initialize`.
pub(crate) fn initialize_delay(context: &ModelContext) -> Duration {
    let text = std::fs::read_to_string(context.version_dir.join("model.py")).unwrap_or_default();
    let initialize = text.split("def initialize").nth(1).and_then(|body| body.split("time.sleep(").nth(1));
    let seconds =
        initialize.and_then(|rest| rest.split(')').next()).and_then(|number| number.trim().parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

/// Whether a suite has made a Python model write its version to the log when it is loaded.
pub(crate) fn logs_its_load(context: &ModelContext) -> bool {
    let text = std::fs::read_to_string(context.version_dir.join("model.py")).unwrap_or_default();
    text.contains("[PB model] Loading version")
}

/// A framework fails without its file, and so does this.
pub(crate) fn find_file(context: &ModelContext) -> Result<()> {
    let Some(path) = model_file(context).filter(|path| !path.exists()) else { return Ok(()) };
    let (path, name) = (path.display(), &context.name);
    Err(Error::unavailable(format!("unable to find '{path}' for model '{name}'")))
}

/// Nor does a framework find an output in its file that a suite has renamed in the configuration.
pub(crate) fn find_outputs(context: &ModelContext) -> Result<()> {
    let outputs = context.config.outputs()?;
    match outputs.iter().find(|output| model_file(context).is_some() && output.name.starts_with('_')) {
        Some(output) => Err(Error::internal(format!("unexpected inference output '{}'", output.name))),
        None => Ok(()),
    }
}

fn model_file(context: &ModelContext) -> Option<std::path::PathBuf> {
    let platform = context.config.json()["platform"].as_str().unwrap_or_default();
    let own = context.config.json()["default_model_filename"].as_str().filter(|name| !name.is_empty());
    let (_, file) = FILES.iter().find(|(name, _)| *name == platform)?;
    Some(context.version_dir.join(own.unwrap_or(file)))
}

/// The version that the model's file was made for: a suite loads it as another one.
fn made_for(context: &ModelContext) -> i64 {
    let any = || FILES.iter().map(|(_, file)| context.version_dir.join(file)).find(|path| path.is_file());
    let text = model_file(context).or_else(any).and_then(|path| std::fs::read_to_string(path).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(context.version)
}

/// What a model does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Output N is input N.
    Identity,
    /// The sum and the difference; `swap`ped in later versions, so that a client sees which one answered.
    AddSub {
        swap: bool,
        delay: Duration,
    },
    Sequence {
        kind: Kind,
        delay: Duration,
    },
    /// IN = n is answered n times with n.
    Square,
    /// The request's parameters.
    Parameters,
    /// A constant, whatever comes in.
    One,
    /// An error, whatever comes in.
    Fail,
    /// No answer but the end.
    Silent,
    /// Sleeps as many seconds as INPUT0 says.
    SleepInput,
    /// Fails to load the first time.
    FailFirst,
    /// Counts its instances in files.
    Counted,
    /// Keeps the sequence's id as its state and looks whether it finds it there.
    State,
}

/// Where the sum of a sequence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Under the row of the batch.
    Row,
    /// Under the correlation id, which is added at the end of the sequence.
    Id,
    /// Nowhere: the input, one more at the start, and the correlation id at the end.
    Nothing,
}

impl Operation {
    /// The operation of a model of this name and version.
    pub(crate) fn of(context: &ModelContext) -> Result<Self> {
        let (name, config) = (context.name.as_str(), &context.config);
        let platform = config.json()["platform"].as_str().unwrap_or_default();
        let delay = Duration::from_millis(config.parameter::<u64>("execute_delay_ms")?.unwrap_or_default());
        let sequence = |kind| Self::Sequence { kind, delay };
        Ok(match name {
            "failing_infer" => Self::Fail,
            "decoupled" => Self::Silent,
            "ground_truth" => Self::SleepInput,
            "model_init_del" => Self::Counted,
            "parameter" => Self::Parameters,
            "retry_model" => Self::FailFirst,
            "sequence_state" => Self::State,
            // The suite of shared memory has a Python model of this name that takes its time.
            "simple" if platform.is_empty() => Self::AddSub { swap: false, delay: Duration::from_secs(15) },
            "simple" => Self::AddSub { swap: false, delay },
            _ if name.starts_with("square") => Self::Square,
            _ if name.starts_with("input_") => Self::One,
            _ if name.contains("_sequence_") && !platform.is_empty() => sequence(Kind::Nothing),
            _ if name.contains("dyna_sequence") => sequence(Kind::Id),
            _ if name.contains("_sequence_") => sequence(Kind::Row),
            _ if is_add_sub(name, config.inputs()?.len(), config.outputs()?.len()) => {
                Self::AddSub { swap: made_for(context) > 1, delay }
            }
            _ => Self::Identity,
        })
    }
}

fn is_add_sub(name: &str, inputs: usize, outputs: usize) -> bool {
    inputs == 2 && outputs == 2 && !["zero", "identity", "nop"].iter().any(|part| name.contains(part))
}
