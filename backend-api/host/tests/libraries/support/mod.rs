//! Builds libraries of other languages and ages, and is the server that they see.
mod answers;
mod build;
mod services;

pub(crate) use answers::{Answers, input, request};
pub(crate) use build::{Edit, c_library, compat_library, scratch};
pub(crate) use services::SERVICES;

use std::path::Path;
use std::sync::Arc;

use trireme_host::abi::InstanceKind;
use trireme_host::{
    Backend, Instance, InstanceArgs, Item, Library, LoadOptions, ModelArgs, Request, Responder,
};

/// Loads a library, a model of it, and one instance.
pub(crate) fn instance(library: &Path, name: &str, config_json: &str) -> Instance {
    let library = Library::open(library, name, &LoadOptions::default()).unwrap();
    let backend = Backend::create(library, &SERVICES, "{}").unwrap();
    let here = Path::new(".");
    let args = ModelArgs { name: "model", version: 1, model_dir: here, version_dir: here, config_json };
    assert_eq!(backend.complete_config(&args).unwrap(), None);
    assert!(backend.extension("nothing/1").is_null());
    let model = backend.load(&args).unwrap();
    let args = InstanceArgs { name: "model_0", index: 0, kind: InstanceKind::CPU, device: 0 };
    model.create_instance(&args).unwrap()
}

/// Runs a batch and returns what each request was answered.
pub(crate) fn run(instance: &mut Instance, batch: Vec<Request>) -> Vec<Arc<Answers>> {
    let (mut items, answers): (Vec<Item>, Vec<Arc<Answers>>) = batch
        .into_iter()
        .map(|request| {
            let answers = Arc::<Answers>::default();
            let responder = Responder::new(answers.clone());
            (Item { request: Box::new(request), responder }, answers)
        })
        .unzip();
    instance.execute(&mut items).unwrap();
    assert!(items.is_empty());
    answers
}
