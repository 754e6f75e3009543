//! The disk under an embedded store, which fails when it is told to: a little C library (`disk.c`) is loaded into the server
//! before the C library and answers in its place. The files are real, and so is the server.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::server::Starting;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing more is written: ENOSPC.
    Full,
    /// Nothing is synced: EIO.
    NoSync,
    /// The write after so many more is done by half, and the process dies in it.
    Torn(u32),
}

impl Fault {
    const fn file(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoSync => "no_sync",
            Self::Torn(_) => "torn",
        }
    }
}

/// A folder with data, and a switch for each fault.
pub(crate) struct FailingDisk {
    data: PathBuf,
    switches: PathBuf,
    library: PathBuf,
}

impl FailingDisk {
    /// A disk without a fault in this folder. Compiles the library: there must be a C compiler.
    pub(crate) fn made_in(folder: &Path) -> Self {
        let disk = Self {
            data: folder.join("data"),
            switches: folder.join("switches"),
            library: folder.join("disk.so"),
        };
        std::fs::create_dir(&disk.switches).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/scenarios/disk.c");
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&disk.library).arg(source).arg("-ldl");
        assert!(compile.status().expect("a C compiler").success(), "disk.c does not compile");
        disk
    }

    /// The store's URL.
    pub(crate) fn url(&self) -> String {
        format!("embedded:{}", self.data.display())
    }

    /// A server on this disk.
    pub(crate) fn under(&self, server: Starting) -> Starting {
        let server = server.in_environment("LD_PRELOAD", self.library.display());
        server.in_environment("FAILING_DISK", self.switches.display())
    }

    /// From now on it fails so.
    pub(crate) fn fails(&self, fault: Fault) {
        let says = if let Fault::Torn(writes) = fault { writes.to_string() } else { String::new() };
        // At once: a half-written switch would be another number.
        let (draft, switch) = (self.switches.join("draft"), self.switches.join(fault.file()));
        std::fs::write(&draft, says).unwrap();
        std::fs::rename(draft, switch).unwrap();
    }

    /// And now it does not.
    pub(crate) fn heals(&self, fault: Fault) {
        std::fs::remove_file(self.switches.join(fault.file())).unwrap();
    }
}
