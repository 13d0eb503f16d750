//! The Debian package: it is built, installed into a directory, and what is installed runs.

use integration_tests::process::Launch;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/package-deb");

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Puts the package into a directory, as far as this user may: with dpkg and its scripts, or its files alone.
fn install(package: &Path, root: &Path) {
    if !rustix::process::getuid().is_root() {
        println!("not root: the files are taken out of the package, without dpkg");
        done(Command::new("dpkg-deb").arg("-x").arg(package).arg(root));
        return;
    }
    let database = root.join("var/lib/dpkg");
    for folder in ["info", "updates", "triggers"] {
        std::fs::create_dir_all(database.join(folder)).expect("a directory");
    }
    std::fs::write(database.join("status"), "").expect("written");
    let dpkg = |action: &[&str], what: &str| {
        let mut command = Command::new("dpkg");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--force-depends"]);
        done(command.args(action).arg(what))
    };
    dpkg(&["-i"], package.to_str().expect("a path in UTF-8"));
    assert!(dpkg(&["-s"], "warren").contains("Status: install ok installed"));
}

#[test]
fn the_package_is_built_and_installed_and_runs() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("dpkg-deb is not on this machine: no package was built");
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let program = env!("CARGO_BIN_EXE_warren-under-test");
    let mut build = Command::new(SCRIPT);
    let package = PathBuf::from(done(build.env("DEB_COMPRESSION", "none").arg(program).arg(home.path())).trim());
    assert!(package.file_name().is_some_and(|name| name.to_string_lossy().starts_with("warren_")), "{package:?}");
    let fields = done(Command::new("dpkg-deb").arg("-f").arg(&package));
    assert!(fields.contains(concat!("Version: ", env!("CARGO_PKG_VERSION"))), "{fields}");
    let root = home.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    install(&package, &root);
    for file in ["usr/lib/systemd/system/warren.service", "usr/share/doc/warren/copyright"] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let installed = root.join("usr/bin/warren");
    let version = done(Command::new(&installed).arg("--version"));
    assert!(version.starts_with(concat!("warren ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    // With the configuration that comes with it.
    let config = root.join("etc/warren/warren.toml");
    let launch = Launch::new(installed).flag("--config").flag(config.to_str().expect("a path in UTF-8"));
    assert!(launch.start().terminate().status.success());
}
