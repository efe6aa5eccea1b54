//! A copy of what a suite needs, with places of ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Stands in upstream's paths where a release's number does.
pub(crate) const VERSION: &str = "QA";

/// Copies a suite and what is beside it; returns the root of the copy and its folder of suites.
pub(crate) fn copy(
    folder: &Path,
    from: &Path,
    clients: Option<&Path>,
    suite: &str,
    name: &str,
) -> Result<(PathBuf, PathBuf)> {
    let root = folder.join("run").join(name);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let qa = root.join("work/qa");
    for part in ["common", "custom_models", "python_models", "images", suite] {
        let part_from = from.join("qa").join(part);
        tree(&part_from, &qa.join(part)).with_context(|| format!("cannot copy {}", part_from.display()))?;
    }
    if let Some(clients) = clients {
        tree(&clients.join("src/python/examples"), &qa.join("clients"))?;
    }
    beside(from, &qa, suite)?;
    let places = [
        ("/opt/tritonserver".to_owned(), root.join("opt/tritonserver").display().to_string()),
        ("/data/inferenceserver".to_owned(), folder.join("data/inferenceserver").display().to_string()),
    ];
    rewrite(&qa, &|path, text| {
        let name = path.file_name().unwrap_or_default();
        if name == "test.sh" {
            let text = places.iter().fold(text, |text, (upstream, ours)| text.replace(upstream, ours));
            Some(without_gpu(&text, suite))
        } else {
            (name == "config.pbtxt").then(|| without_gpu(&text, suite))
        }
    })?;
    Ok((root, qa))
}

/// What upstream's build puts beside the suites.
fn beside(from: &Path, qa: &Path, suite: &str) -> Result<()> {
    let models = qa.join(suite).join("models");
    let fixtures = from.join("src/test/models");
    let examples = from.join("docs/examples/model_repository");
    for model in ["custom_sequence_int32", "custom_dyna_sequence_int32"] {
        fs::create_dir_all(qa.join("custom_models").join(model).join("1"))?;
    }
    match suite {
        "L0_decoupled" => {
            for model in ["repeat_int32", "square_int32"] {
                tree(&fixtures.join(model), &models.join(model))?;
            }
            for model in fs::read_dir(&models)? {
                fs::create_dir_all(model?.path().join("1"))?;
            }
            tree(&models, &qa.join(suite).join("python_models"))?;
        }
        "L0_shared_memory" | "L0_data_compression" | "L0_simple_ensemble" => {
            tree(&examples.join("simple"), &models.join("simple"))?;
            if suite == "L0_simple_ensemble" {
                // The suite's own configuration, and a second version.
                let config = from.join("qa").join(suite).join("models/simple/config.pbtxt");
                fs::copy(config, models.join("simple/config.pbtxt"))?;
                tree(&models.join("simple/1"), &models.join("simple/2"))?;
            }
        }
        "L0_input_validation" => tree(&examples.join("simple_identity"), &models.join("simple_identity"))?,
        "L0_warmup" => {
            let test = Path::new("L0_backend_python/test_infer_shm_leak.py");
            fs::create_dir_all(qa.join("L0_backend_python"))?;
            fs::copy(from.join("qa").join(test), qa.join(test))?;
        }
        "L0_lifecycle" => fs::write(qa.join(suite).join("libtriton_identity.so"), "")?,
        _ => {}
    }
    Ok(())
}

/// No GPU here; one suite looks at what happens where a backend does not know one.
fn without_gpu(text: &str, suite: &str) -> String {
    if suite == "L0_lifecycle" {
        return text.to_owned();
    }
    // An edit of a script names both kinds.
    let line = |line: &str| {
        if line.contains("s/kind") { line.to_owned() } else { line.replace("KIND_GPU", "KIND_CPU") }
    };
    text.split_inclusive('\n').map(line).collect()
}

fn tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn rewrite(folder: &Path, change: &dyn Fn(&Path, String) -> Option<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rewrite(&path, change)?;
        } else if let Ok(text) = fs::read_to_string(&path)
            && let Some(changed) = change(&path, text)
        {
            fs::write(&path, changed)?;
        }
    }
    Ok(())
}
