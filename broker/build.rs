//! Tells the sources which commit they are of.
//!
//! `WARREN_COMMIT` in the environment comes first, for who builds from an archive and knows. Then git is asked, if this is a
//! checkout of our own: a vendored copy inside another repository must not name that one's commits. Otherwise there is none.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=WARREN_COMMIT");
    let commit = match std::env::var("WARREN_COMMIT") {
        Ok(given) if is_hexadecimal(&given) => Some(given),
        _ => asked(),
    };
    let commit = commit.unwrap_or_else(|| "commit unknown".to_owned());
    println!("cargo::rustc-env=WARREN_VERSION={} ({commit})", env!("CARGO_PKG_VERSION"));
}

fn asked() -> Option<String> {
    let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let top = git(&root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root {
        return None;
    }
    // These change with every commit and every checkout. Cargo would build each time for a file that is not there.
    for name in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(&root, &["rev-parse", "--git-path", name])?);
        if path.is_file() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&root, &["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_hexadecimal(commit))
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
