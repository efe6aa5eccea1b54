//! A backend in C is served by the same interface.

use crate::support::{c_library, input, instance, request, run, scratch};
use trireme_host::abi::DType;
use trireme_host::{Library, LoadOptions};

#[test]
fn identity_in_c_returns_its_inputs() {
    let library = scratch("c").join("libtrireme_c_identity.so");
    c_library("c_backend/identity.c", &library, &[]);
    let mut instance = instance(&library, "c_identity", "{}");
    let texts = [&[3, 0, 0, 0][..], b"abc", &[0, 0, 0, 0]].concat();
    let batch = (0..3u8).map(|number| {
        let inputs = vec![
            input(0, DType::UINT8, &[1, 4], &[&[number, 1], &[2], &[3]]),
            input(2, DType::BYTES, &[2], &[&texts]),
            input(3, DType::FP64, &[0], &[]),
        ];
        request("", &["A", "B", "C", "D"], inputs)
    });
    for (number, answers) in (0..3u8).zip(run(&mut instance, batch.collect())) {
        let [response]: [_; 1] = answers.take().try_into().unwrap();
        let outputs: Vec<_> = response
            .outputs
            .iter()
            .map(|output| (output.name.as_str(), output.dtype, output.shape.as_slice(), output.data.as_ref()))
            .collect();
        let expected: [(&str, DType, &[i64], &[u8]); 3] = [
            ("OUTPUT0", DType::UINT8, &[1, 4], &[number, 1, 2, 3]),
            ("OUTPUT1", DType::BYTES, &[2], &texts),
            ("OUTPUT2", DType::FP64, &[0], &[]),
        ];
        assert_eq!(outputs, expected);
    }
    assert!(run(&mut instance, Vec::new()).is_empty(), "an empty batch is no batch");
    instance.drain();
    let library = Library::open(&library, "c_identity", &LoadOptions::default()).unwrap();
    assert_eq!((library.name(), library.version(), library.sdk()), ("c_identity", "1", "C"));
    assert!(library.info().cpu && !library.info().gpu);
}
