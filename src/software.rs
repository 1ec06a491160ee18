//! The engine's programs: on PATH, or unpacked without root below the user's own data directory; and how
//! each is run there, with the libraries that came along.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::host::{Child, Host};
use crate::layout;

/// The variable that names directories of libraries (ld.so(8)).
pub const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// A program that is there, and what it needs to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// The directories of its libraries; none where the system has them.
    pub libraries: Option<OsString>,
}

impl Tool {
    /// The program as a child to be.
    pub fn child(&self) -> Child {
        let child = Child::new(&self.path);
        match &self.libraries {
            Some(libraries) => child.env(LIBRARIES, libraries),
            None => child,
        }
    }
}

/// A program of the engine's: that of the system, or else the unpacked one.
pub fn find(host: &Host, engine: Engine, program: &str) -> Option<Tool> {
    if let Some(path) = host.which(program) {
        return Some(Tool { path, libraries: None });
    }
    let root = unpacked(engine)?;
    let path = root.join("usr/bin").join(program);
    host.stat(&path).ok()??;
    Some(Tool { path, libraries: Some(libraries(host, &root)) })
}

/// Where packages are unpacked; none where root installs them.
pub fn place() -> Option<PathBuf> {
    let here = layout::here();
    here.login.as_ref().map(|_| here.data.join("redis-tp/software"))
}

/// Where the packages of an engine are unpacked.
pub fn unpacked(engine: Engine) -> Option<PathBuf> {
    Some(place()?.join(engine.name()))
}

/// The directories of libraries below `root`: Debian has one for each kind of machine.
fn libraries(host: &Host, root: &Path) -> OsString {
    let dirs = ["usr/lib", "lib"].into_iter().flat_map(|lib| {
        let lib = root.join(lib);
        let kinds = host.list(&lib).unwrap_or_default().into_iter().filter(|name| name.contains("-linux-"));
        kinds.map(|kind| lib.join(kind)).collect::<Vec<_>>()
    });
    let dirs: Vec<OsString> = dirs.map(PathBuf::into_os_string).collect();
    dirs.join(&OsString::from(":"))
}
