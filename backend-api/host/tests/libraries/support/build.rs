use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of its own for a test; what is left there from an earlier run speeds up the next one.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi-compat").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Compiles `tests/abi-compat/<source>` with definitions into `library`.
pub(crate) fn c_library(source: &str, library: &Path, definitions: &[(&str, &str)]) {
    let workspace = workspace();
    // Beside it and renamed, so that a library that is loaded is not written to.
    let fresh = library.with_extension(format!("{}.new", std::process::id()));
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-fPIC", "-shared"]);
    cc.arg("-I").arg(workspace.join("backend-api/abi/include"));
    cc.args(definitions.iter().map(|(name, value)| format!("-D{name}={value}")));
    cc.arg("-o").arg(&fresh).arg(workspace.join("tests/abi-compat").join(source));
    run(&mut cc);
    fs::rename(fresh, library).unwrap();
}

/// A change of an interface: the file below `backend-api`, what is there, what takes its place.
pub(crate) type Edit<'a> = (&'static str, &'static str, &'a str);

/// Builds `tests/abi-compat/backend` with copies of the interface and of the SDK that were changed.
pub(crate) fn compat_library(age: &str, edits: &[Edit<'_>]) -> PathBuf {
    let (workspace, copy) = (workspace(), scratch(age));
    let mut left = edits.to_vec();
    for part in ["abi", "sdk"] {
        for file in files(&workspace.join("backend-api").join(part)) {
            let name = file.strip_prefix(workspace.join("backend-api")).unwrap();
            let mut text = fs::read_to_string(&file).unwrap();
            left.retain(|(of, from, to)| {
                if Path::new(of) != name {
                    return true;
                }
                assert_eq!(text.matches(from).count(), 1, "{of} has '{from}' once");
                text = text.replace(from, to);
                false
            });
            write(&copy.join(age).join(name), &text);
        }
    }
    assert!(left.is_empty(), "no file for {left:?}");
    for file in files(&workspace.join("tests/abi-compat/backend")) {
        let name = file.strip_prefix(workspace.join("tests/abi-compat")).unwrap();
        let mut text = fs::read_to_string(&file).unwrap();
        if name.ends_with("Cargo.toml") {
            // A name for each age, since all are built in one folder.
            text = text.replace("compat", age);
        }
        write(&copy.join(age).join(name), &text);
    }
    // The versions and the profile of this workspace, the members of the copy. They lie in a folder of the age's name, for
    // cargo takes crates at the same place in two workspaces for the same; so all ages, and the frozen version, can share
    // what they are built on.
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
    let (before, rest) = manifest.split_once("members = [").unwrap();
    let (_, after) = rest.split_once(']').unwrap();
    let members = format!(r#"members = ["{age}/abi", "{age}/sdk", "{age}/backend"]"#);
    let manifest = format!("{before}{members}{after}").replace("\"backend-api/", &format!("\"{age}/"));
    write(&copy.join("Cargo.toml"), &manifest);
    let lock = copy.join("Cargo.lock");
    if !lock.is_file() {
        write(&lock, &fs::read_to_string(workspace.join("Cargo.lock")).unwrap());
    }

    let target = scratch("target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&copy).env("CARGO_TARGET_DIR", &target);
    cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTFLAGS");
    cargo.args(["build", "--release", "--offline", "--quiet", "-p"]).arg(format!("trireme-backend-{age}"));
    run(&mut cargo);
    target.join(format!("release/libtrireme_{age}.so"))
}

/// The manifest and the sources of a crate.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (vec![folder.join("Cargo.toml")], vec![folder.join("src")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Leaves a file alone that is as it should be, so that nothing is built again for it.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
