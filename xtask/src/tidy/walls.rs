//! Who may know whom, over the direct dependencies that `cargo metadata` reports.
//!
//! ```text
//! abi <- sdk <- backends/*          abi <- host <- runtime <- {http, grpc} <- server
//! ```

use crate::workspace::{Package, Workspace};

/// One wall: packages that `applies` may not name a dependency that `forbids`.
struct Wall {
    rule: &'static str,
    applies: fn(&Room) -> bool,
    forbids: fn(&str) -> bool,
    /// Whether a test may look over the wall.
    tests_too: bool,
}

/// A package as the rules see it.
struct Room<'a> {
    name: &'a str,
    folder: &'a str,
}

const SERVER_CRATES: [&str; 12] = [
    "trireme",
    "trireme-protocol",
    "trireme-model-config",
    "trireme-scheduling",
    "trireme-repository",
    "trireme-objects",
    "trireme-runtime",
    "trireme-telemetry",
    "trireme-drain",
    "trireme-http",
    "trireme-grpc",
    "trireme-host",
];

const WALLS: &[Wall] = &[
    Wall {
        rule: "no server crate names the SDK",
        applies: |room| room.folder.starts_with("server-core/"),
        forbids: |name| name == "trireme-sdk",
        tests_too: true,
    },
    Wall {
        // Tests of a backend load its library as the server does, through host.
        rule: "no backend names a server crate",
        applies: |room| room.folder.starts_with("backends/"),
        forbids: |name| SERVER_CRATES.contains(&name),
        tests_too: false,
    },
    Wall {
        rule: "only abi and host name abi_stable",
        applies: |room| !matches!(room.name, "trireme-abi" | "trireme-host"),
        forbids: |name| name == "abi_stable",
        tests_too: true,
    },
    Wall {
        rule: "abi knows no other room",
        applies: |room| room.name == "trireme-abi",
        forbids: |name| name.starts_with("trireme"),
        tests_too: false,
    },
    Wall {
        rule: "the SDK knows abi only",
        applies: |room| room.name == "trireme-sdk",
        forbids: |name| name.starts_with("trireme") && name != "trireme-abi",
        tests_too: false,
    },
    Wall {
        rule: "host knows abi only",
        applies: |room| room.name == "trireme-host",
        forbids: |name| name.starts_with("trireme") && name != "trireme-abi",
        tests_too: false,
    },
    Wall {
        rule: "the conformance kit knows host only",
        applies: |room| room.name == "trireme-conformance",
        forbids: |name| name.starts_with("trireme") && name != "trireme-host",
        tests_too: false,
    },
    Wall {
        rule: "protocol, model-config and scheduling know no runtime",
        applies: |room| {
            matches!(room.name, "trireme-protocol" | "trireme-model-config" | "trireme-scheduling")
        },
        forbids: |name| matches!(name, "tokio" | "trireme-runtime" | "trireme-host" | "trireme-repository"),
        tests_too: true,
    },
    Wall {
        rule: "scheduling is sans-io: no threads, no channels, no clock crate",
        applies: |room| room.name == "trireme-scheduling",
        forbids: |name| matches!(name, "crossbeam-channel" | "parking_lot" | "rayon" | "tracing"),
        tests_too: false,
    },
    Wall {
        rule: "runtime knows no front end",
        applies: |room| room.name == "trireme-runtime",
        forbids: |name| matches!(name, "trireme-http" | "trireme-grpc" | "trireme"),
        tests_too: true,
    },
    Wall {
        rule: "only http, grpc and objects name hyper",
        applies: |room| {
            is_product(room) && !matches!(room.name, "trireme-http" | "trireme-grpc" | "trireme-objects")
        },
        forbids: |name| matches!(name, "hyper" | "hyper-util" | "hyper-rustls"),
        tests_too: false,
    },
    Wall {
        rule: "only objects names object_store, and only the server names objects",
        applies: |room| is_product(room) && !matches!(room.name, "trireme" | "trireme-objects"),
        forbids: |name| matches!(name, "object_store" | "trireme-objects"),
        tests_too: false,
    },
    Wall {
        rule: "only grpc and protocol name tonic",
        applies: |room| is_product(room) && !matches!(room.name, "trireme-grpc" | "trireme-protocol"),
        forbids: |name| name.starts_with("tonic"),
        tests_too: false,
    },
];

/// Not a tool or a test harness of our own.
fn is_product(room: &Room) -> bool {
    !matches!(room.folder, "xtask" | "tests")
}

pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    workspace
        .packages
        .iter()
        .flat_map(|package| check_package(package, &package.folder(&workspace.root)))
        .collect()
}

fn check_package(package: &Package, folder: &str) -> Vec<String> {
    let room = Room { name: &package.name, folder };
    let mut findings = Vec::new();
    for wall in WALLS.iter().filter(|wall| (wall.applies)(&room)) {
        for dependency in &package.dependencies {
            let is_test = dependency.kind.as_deref() == Some("dev");
            if (wall.forbids)(&dependency.name) && (wall.tests_too || !is_test) {
                findings.push(format!("{folder}/Cargo.toml names {}: {}", dependency.name, wall.rule));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn findings(name: &str, folder: &str, dependency: &str, kind: Option<&str>) -> usize {
        let package = Package {
            version: String::new(),
            name: name.into(),
            manifest_path: "/x/Cargo.toml".into(),
            dependencies: vec![Dependency { name: dependency.into(), kind: kind.map(String::from) }],
            targets: Vec::new(),
        };
        check_package(&package, folder).len()
    }

    #[test]
    fn each_wall_stands() {
        for (name, folder, dependency) in [
            ("trireme-http", "server-core/http", "trireme-sdk"),
            ("trireme-identity", "backends/identity", "trireme-protocol"),
            ("trireme-sdk", "backend-api/sdk", "abi_stable"),
            ("trireme-abi", "backend-api/abi", "trireme-host"),
            ("trireme-conformance", "backend-api/conformance", "trireme-sdk"),
            ("trireme-scheduling", "server-core/scheduling", "tokio"),
            ("trireme-runtime", "server-core/runtime", "trireme-http"),
            ("trireme-runtime", "server-core/runtime", "hyper"),
            ("trireme-http", "server-core/http", "tonic"),
            ("trireme-runtime", "server-core/runtime", "object_store"),
        ] {
            assert_eq!(findings(name, folder, dependency, None), 1, "{name} -> {dependency}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        for (name, folder, dependency, kind) in [
            ("trireme-identity", "backends/identity", "trireme-sdk", None),
            ("trireme-host", "backend-api/host", "abi_stable", None),
            ("trireme-http", "server-core/http", "hyper", None),
            ("trireme-grpc", "server-core/grpc", "hyper-util", None),
            ("trireme-backend-cpu", "backends/cpu", "trireme-host", Some("dev")),
            ("xtask", "xtask", "tonic", Some("dev")),
        ] {
            assert_eq!(findings(name, folder, dependency, kind), 0, "{name} -> {dependency}");
        }
    }
}
