//! The files that a run leaves: what the options ask for, tried before anything starts, since a run that cannot be written down
//! is played for nothing, and written at the end. Called by `main`. Every error names its path.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::history::History;
use crate::options::Common;
use crate::report::Report;

/// Why something cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The system refuses.
    #[error("{option} {}: it cannot be written: {source}", path.display())]
    Unwritable {
        /// What asks for it.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// One would take the other's place.
    #[error("{one} and {other} would both be written to {}: give one of them another name", path.display())]
    Same {
        /// What asks for it.
        one: &'static str,
        /// What asks for it, too.
        other: &'static str,
        /// Which.
        path: PathBuf,
    },
}

/// What stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Numbers,
    Page,
    History,
}

#[derive(Debug)]
struct Output {
    option: &'static str,
    path: PathBuf,
    content: Content,
}

/// All of a run.
#[derive(Debug)]
pub struct Outputs {
    folder: Option<PathBuf>,
    files: Vec<Output>,
}

impl Outputs {
    /// What the options ask for.
    #[must_use]
    pub fn of(common: &Common) -> Self {
        let mut files = Vec::new();
        let mut add = |option, path: PathBuf, content| files.push(Output { option, path, content });
        if let Some(path) = &common.json {
            add("--json", path.clone(), Content::Numbers);
        }
        if let Some(path) = &common.history {
            add("--history", path.clone(), Content::History);
        }
        if let Some(path) = &common.report {
            add("--report", path.clone(), Content::Page);
            add("the JSON beside --report", path.with_extension("json"), Content::Numbers);
        }
        if let Some(folder) = &common.out {
            add("--out", folder.join("report.html"), Content::Page);
            add("--out", folder.join("report.json"), Content::Numbers);
        }
        Self { folder: common.out.clone(), files }
    }

    /// Tries whether all can be written, and makes the folder. A file that is there stays as it is; none is left that was not.
    ///
    /// # Errors
    /// [`OutputError`], of the first that cannot.
    pub fn check(&self) -> Result<(), OutputError> {
        for (place, one) in self.files.iter().enumerate() {
            let same = |other: &&Output| {
                one.content != other.content && absolute(&one.path) == absolute(&other.path)
            };
            if let Some(other) = self.files.iter().skip(place).find(same) {
                let path = one.path.clone();
                return Err(OutputError::Same { one: one.option, other: other.option, path });
            }
        }
        if let Some(folder) = &self.folder {
            let failed = |source| OutputError::Unwritable { option: "--out", path: folder.clone(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        self.files.iter().try_for_each(|output| output.failed(tried(&output.path)))
    }

    /// Writes them, also those that come after one that fails; where each is, and what went wrong.
    #[must_use]
    pub fn write(&self, report: &Report, history: &History) -> (Vec<String>, Vec<OutputError>) {
        let (mut written, mut failed) = (Vec::new(), Vec::new());
        for output in &self.files {
            let path = &output.path;
            let done = match output.content {
                Content::Numbers => report.write_json(path),
                Content::Page => std::fs::write(path, report.page()),
                Content::History => File::create(path).and_then(|file| history.write(BufWriter::new(file))),
            };
            match output.failed(done) {
                Ok(()) => written.push(path.display().to_string()),
                Err(error) => failed.push(error),
            }
        }
        (written, failed)
    }
}

impl Output {
    fn failed(&self, done: std::io::Result<()>) -> Result<(), OutputError> {
        let (option, path) = (self.option, self.path.clone());
        done.map_err(|source| OutputError::Unwritable { option, path, source })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens it for writing and changes nothing.
fn tried(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path) {
        // A pipe would hear its end, and a device takes what it takes.
        Ok(there) if !there.is_file() && !there.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop),
        Err(_) => {
            OpenOptions::new().write(true).create_new(true).open(path)?;
            std::fs::remove_file(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::Options;

    fn checked(more: &[&str]) -> Result<(), String> {
        let line = ["load", "steady"].iter().chain(more);
        let options = Options::try_parse_from(line).unwrap();
        Outputs::of(&options.common).check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_written_is_named_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let nowhere = text(folder.path().join("no").join("x.json"));
        let file = text(folder.path().join("a file"));
        std::fs::write(&file, "kept").unwrap();
        let below_a_file = format!("{file}/x");
        let a_folder = text(folder.path().to_owned());
        for (option, path) in [
            ("--json", &nowhere),
            ("--history", &nowhere),
            ("--report", &nowhere),
            ("--out", &below_a_file),
            ("--json", &a_folder),
        ] {
            let said = checked(&[option, path]).unwrap_err();
            assert!(said.contains(option) && said.contains(path.as_str()), "{said}");
        }
        let new = text(folder.path().join("x.json"));
        assert_eq!(checked(&["--json", &new, "--history", &file]), Ok(()));
        assert!(!Path::new(&new).exists() && std::fs::read_to_string(&file).unwrap() == "kept");
        assert_eq!(checked(&["--json", "/dev/null"]), Ok(()), "a device takes what it takes");
    }

    #[test]
    fn a_page_that_its_own_numbers_would_take_the_place_of_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let said = checked(&["--report", &path("x.json")]).unwrap_err();
        assert!(said.contains("--report") && said.contains("x.json"), "{said}");
        assert!(checked(&["--report", &path("y.txt"), "--history", &path("y.json")]).is_err());
        assert_eq!(checked(&["--report", &path("y.txt"), "--json", &path("y.json")]), Ok(()));
    }
}
