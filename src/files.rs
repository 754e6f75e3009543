//! Files of the settings that are read again when they change: keys, certificates. `app` looks at them in turn; rooms
//! take what is in force. What cannot be read never takes the place of what could, and a path is followed anew at each
//! look, because some platforms change a file by pointing a link elsewhere.

use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::time::MissedTickBehavior;

use crate::tasks::Tasks;

/// Between two looks. A change is taken once two looks have seen the same, so that nothing half-written is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most bytes of one file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What is wrong with a file, and which setting names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct Fault {
    /// The setting.
    pub setting: String,
    /// What is wrong with it.
    pub message: String,
}

/// A file as a setting names it.
#[derive(Debug, Clone)]
pub struct Named {
    /// The setting.
    pub setting: String,
    /// The file.
    pub path: PathBuf,
}

impl Named {
    /// The file that this setting names.
    pub fn new(setting: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { setting: setting.into(), path: path.into() }
    }

    /// A fault of it.
    #[must_use]
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { setting: self.setting.clone(), message: message.into() }
    }

    fn unreadable(&self, error: &std::io::Error) -> Fault {
        self.fault(format!("cannot read {}: {error}", self.path.display()))
    }

    fn checked(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Fault> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(self.fault(format!("{} has more than {FILE_BYTES_MAX} bytes", self.path.display())));
        }
        Ok(bytes)
    }
}

/// What the contents of the files mean; the files in the order in which they were named.
type Make<T> = dyn Fn(&[Named], &[Vec<u8>]) -> Result<T, Fault> + Send + Sync;

/// What some files hold, as long as it can be read; else what they held before.
pub struct Reread<T> {
    files: Vec<Named>,
    make: Box<Make<T>>,
    in_force: RwLock<Arc<T>>,
    looks: Mutex<Looks>,
}

/// What has been seen so far. Contents are told apart by their digest: a time stamp may stand still, and a length, too.
#[derive(Default)]
struct Looks {
    latest: Option<[u8; 32]>,
    judged: Option<[u8; 32]>,
    fault: Option<Fault>,
}

impl<T> Reread<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`Fault`] when one cannot be read, or means nothing: nothing may start with it.
    pub fn open(
        files: Vec<Named>,
        make: impl Fn(&[Named], &[Vec<u8>]) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<Self, Fault> {
        let read = files.iter().map(|file| read_now(&file.path).map_err(|error| file.unreadable(&error)));
        let read: Vec<Vec<u8>> =
            read.zip(&files).map(|(read, file)| file.checked(read?)).collect::<Result<_, _>>()?;
        let made = Arc::new(make(&files, &read)?);
        let seen = Some(digest(&Ok(read)));
        let looks = Mutex::new(Looks { latest: seen, judged: seen, fault: None });
        Ok(Self { files, make: Box::new(make), in_force: RwLock::new(made), looks })
    }

    /// What is in force.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.in_force.read())
    }

    /// Judges what was read, once it has been the same twice.
    fn judge(&self, read: Result<Vec<Vec<u8>>, Fault>) {
        let seen = Some(digest(&read));
        let mut looks = self.looks.lock();
        let is_steady = looks.latest == seen;
        looks.latest = seen;
        if !is_steady || looks.judged == seen {
            return;
        }
        looks.judged = seen;
        let setting = self.files.first().map_or("", |file| file.setting.as_str());
        looks.fault = match read.and_then(|read| (self.make)(&self.files, &read)) {
            Ok(made) => {
                *self.in_force.write() = Arc::new(made);
                tracing::info!(
                    operation = "reread",
                    setting,
                    status = "ok",
                    "taken anew: the file has changed"
                );
                None
            }
            Err(Fault { setting, message }) => {
                let message = format!("{message}; what was read before stays in force");
                tracing::warn!(operation = "reread", setting, status = "refused", "{message}");
                Some(Fault { setting, message })
            }
        };
    }
}

/// A file that is looked at, whatever it holds.
pub trait Watched: Send + Sync {
    /// Looks once.
    fn look(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// What stands in the way of its present content.
    fn fault(&self) -> Option<Fault>;
}

impl<T: Send + Sync> Watched for Reread<T> {
    fn look(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(self.files.len());
            for file in &self.files {
                let read = read_later(&file.path).await.map_err(|error| file.unreadable(&error));
                match read.and_then(|read| file.checked(read)) {
                    Ok(read) => all.push(read),
                    Err(fault) => return self.judge(Err(fault)),
                }
            }
            self.judge(Ok(all));
        })
    }

    fn fault(&self) -> Option<Fault> {
        self.looks.lock().fault.clone()
    }
}

/// Looks at all of them until the tasks are asked to stop.
pub async fn watch(files: Vec<Arc<dyn Watched>>, tasks: Tasks) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            _ = ticks.tick() => {}
        }
        for file in &files {
            file.look().await;
        }
    }
}

fn read_now(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn read_later(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn digest(read: &Result<Vec<Vec<u8>>, Fault>) -> [u8; 32] {
    let mut digest = Sha256::new();
    match read {
        Ok(contents) => contents.iter().for_each(|content| {
            digest.update((content.len() as u64).to_le_bytes());
            digest.update(content);
        }),
        Err(fault) => digest.update(fault.to_string()),
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
        made: Reread<u32>,
    }

    impl Folder {
        /// One number in a file.
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("number");
            std::fs::write(&path, text).expect("write");
            let made = Reread::open(vec![Named::new("test.file", path)], number).expect("a good file");
            Self { folder, made }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("number")
        }

        async fn look(&self, times: usize) -> u32 {
            for _ in 0..times {
                self.made.look().await;
            }
            *self.made.get()
        }
    }

    fn number(files: &[Named], contents: &[Vec<u8>]) -> Result<u32, Fault> {
        let text = String::from_utf8_lossy(&contents[0]);
        text.trim().parse().map_err(|_| files[0].fault("not a number"))
    }

    #[tokio::test]
    async fn a_change_is_taken_when_it_has_been_seen_twice() {
        let folder = Folder::new("1");
        std::fs::write(folder.path(), "2").expect("write");
        assert_eq!(folder.look(1).await, 1, "it may still be written");
        assert_eq!(folder.look(1).await, 2);
        assert_eq!(folder.made.fault(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_read_leaves_what_was_and_is_told() {
        let folder = Folder::new("1");
        std::fs::write(folder.path(), "one").expect("write");
        assert_eq!(folder.look(2).await, 1);
        let fault = folder.made.fault().expect("a fault");
        assert!(fault.message.starts_with("not a number; what was read before"), "{fault}");
        std::fs::remove_file(folder.path()).expect("remove");
        assert_eq!(folder.look(2).await, 1);
        assert!(folder.made.fault().expect("a fault").message.contains("cannot read"));
        std::fs::write(folder.path(), vec![b'1'; 300 * 1024]).expect("write");
        assert_eq!(folder.look(2).await, 1);
        assert!(folder.made.fault().expect("a fault").message.contains("more than"));
        // The very content that is in force makes all well again.
        std::fs::write(folder.path(), "1").expect("write");
        assert_eq!((folder.look(2).await, folder.made.fault()), (1, None));
    }

    #[tokio::test]
    async fn a_link_that_points_elsewhere_is_followed() {
        let folder = Folder::new("0");
        for (name, text) in [("one", "1"), ("two", "2")] {
            std::fs::write(folder.folder.path().join(name), text).expect("write");
        }
        for (name, expected) in [("one", 1), ("two", 2)] {
            let link = folder.folder.path().join("link");
            std::os::unix::fs::symlink(folder.folder.path().join(name), &link).expect("a link");
            std::fs::rename(&link, folder.path()).expect("rename");
            assert_eq!(folder.look(2).await, expected);
        }
    }

    #[test]
    fn a_fault_at_start_is_an_error() {
        let told = Reread::open(vec![Named::new("test.file", "/nowhere/number")], number);
        let told = told.err().expect("a fault").to_string();
        assert!(told.starts_with("test.file: cannot read /nowhere/number: "), "{told}");
    }
}
