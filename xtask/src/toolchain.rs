//! The clients of other languages, brought from their registries into `.xtask/` at the versions that the tests pin.
//!
//! Each install is done once and again when what it was made from has changed. Promises: nothing is installed outside
//! `.xtask/`, except kcat, which only Debian's package manager has.

use crate::error::{AtPath, Error, Result};
use crate::process::{child_command, must_succeed, on_path, root, run_to_end, workshop};
use std::path::{Path, PathBuf};

/// What a suite needs besides the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Kafka,
    Python,
    Go,
    Node,
    Kcat,
}

pub(crate) fn install(needs: Needs) -> Result<()> {
    match needs {
        Needs::Kafka => crate::kafka::install(),
        Needs::Python => python(),
        Needs::Go => go(),
        Needs::Node => node(),
        Needs::Kcat => kcat(),
    }
}

pub(crate) fn python_program() -> PathBuf {
    workshop().join("python/bin/python")
}

pub(crate) fn go_program(name: &str) -> PathBuf {
    workshop().join("go").join(name)
}

pub(crate) fn node_modules() -> PathBuf {
    workshop().join("node/node_modules")
}

fn clients() -> PathBuf {
    root().join("tests/clients")
}

/// Whether `home` was made from this text; when not, it must be made anew.
fn is_current(home: &Path, source: &str) -> bool {
    std::fs::read_to_string(home.join("installed")).is_ok_and(|found| found == source)
}

fn mark_current(home: &Path, source: &str) -> Result<()> {
    let stamp = home.join("installed");
    std::fs::write(&stamp, source).at(&stamp)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).at(path)
}

fn need(program: &str, whose: &str) -> Result<()> {
    if on_path(program) {
        return Ok(());
    }
    Err(Error::new(format!(
        "{whose} needs '{program}', which is not on the path"
    )))
}

fn python() -> Result<()> {
    need("python3", "The Python clients' suites")?;
    let home = workshop().join("python");
    let requirements = clients().join("python/requirements.txt");
    let source = read(&requirements)?;
    if is_current(&home, &source) {
        return Ok(());
    }
    eprintln!("Bringing the Python clients to {} …", home.display());
    if home.exists() {
        std::fs::remove_dir_all(&home).at(&home)?;
    }
    let log = workshop().join("python-install.log");
    must_succeed(
        child_command("python3").args(["-m", "venv"]).arg(&home),
        Some(&log),
    )?;
    let mut pip = child_command(home.join("bin/pip"));
    pip.args([
        "install",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--no-deps",
        "-r",
    ]);
    must_succeed(pip.arg(&requirements), Some(&log))?;
    mark_current(&home, &source)
}

fn node() -> Result<()> {
    need("node", "The kafkajs suite")?;
    need("npm", "The kafkajs suite")?;
    let home = workshop().join("node");
    let source = read(&clients().join("node/package.json"))?;
    if is_current(&home, &source) {
        return Ok(());
    }
    eprintln!("Bringing kafkajs to {} …", home.display());
    if home.exists() {
        std::fs::remove_dir_all(&home).at(&home)?;
    }
    std::fs::create_dir_all(&home).at(&home)?;
    let manifest = home.join("package.json");
    std::fs::write(&manifest, &source).at(&manifest)?;
    let log = workshop().join("node-install.log");
    let mut npm = child_command("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--ignore-scripts",
    ]);
    must_succeed(npm.current_dir(&home), Some(&log))?;
    mark_current(&home, &source)
}

/// Go has a cache of its own, so the build is asked for every time.
fn go() -> Result<()> {
    need("go", "The Go clients' suites")?;
    let home = workshop().join("go");
    std::fs::create_dir_all(&home).at(&home)?;
    let log = workshop().join("go-build.log");
    let mut build = child_command("go");
    build
        .args(["build", "-o"])
        .arg(format!("{}/", home.display()))
        .arg("./...");
    must_succeed(
        build
            .env("GOFLAGS", "-mod=readonly")
            .current_dir(clients().join("go")),
        Some(&log),
    )
}

fn kcat() -> Result<()> {
    if on_path("kcat") {
        return Ok(());
    }
    need("apt-get", "Without an installed kcat its suite")?;
    eprintln!("Installing kcat …");
    let log = workshop().join("kcat-install.log");
    let apt = |arguments: &[&str]| {
        let mut command = child_command("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install = ["install", "-y", "--no-install-recommends", "kcat"];
    if !run_to_end(&mut apt(&install), Some(&log))?.success() {
        must_succeed(&mut apt(&["update"]), Some(&log))?;
        must_succeed(&mut apt(&install), Some(&log))?;
    }
    Ok(())
}
