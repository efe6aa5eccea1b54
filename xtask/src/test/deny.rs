//! `cargo-deny`, installed once under `target/tools` if the machine has none (about two minutes on two cores).

use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

const VERSION: &str = "0.20.2";

/// A command that runs cargo-deny on this workspace.
pub(crate) fn ready(workspace: &Workspace) -> Result<Command> {
    let program = if process::on_path("cargo-deny") {
        "cargo-deny".into()
    } else {
        let tools = workspace.target.join("tools");
        let program = tools.join("bin/cargo-deny");
        if !program.is_file() {
            println!("  installing cargo-deny {VERSION}");
            let mut install = process::cargo(&workspace.root);
            install
                .args(["install", "cargo-deny", "--locked", "--quiet", "--version", VERSION, "--root"])
                .arg(&tools);
            process::run(&mut install, "cargo install cargo-deny")?;
        }
        program
    };
    let mut command = Command::new(program);
    command.current_dir(&workspace.root).args(["--log-level", "error"]);
    Ok(command)
}
