//! The folder of the embedded store: its lock and its one database file. The writer opens it, again after each I/O
//! error, because the database refuses every call from then on. Never holds a record.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};

use crate::store::OpenError;

const DATABASE_FILE: &str = "hearth.redb";
const LOCK_FILE: &str = "lock";
/// The database's own page cache. Hot records live in the home's memory; this one serves resumes and cold reads.
const PAGE_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// What is written back at once after a failed sync: the size of a page of most disks.
const REWRITE_BLOCK_BYTES: usize = 4096;

/// Opens the database file at this path. A test puts a failing disk here.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send>;

/// A folder that is ours for as long as this value lives, also while the database itself is reopened.
pub(super) struct Folder {
    database: PathBuf,
    opener: Opener,
    _lock: File,
}

/// The opener of real files.
pub(super) fn on_disk() -> Opener {
    Box::new(|path| Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path))
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(super) fn lock(dir: &Path, opener: Opener) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message: a lock without a readable owner is a lock all the same.
                let _ = lock.read_to_string(&mut pid);
                return Err(OpenError::FolderLocked { dir: dir.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let pid = std::process::id().to_string();
        lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).map_err(unusable)?;
        Ok(Self { database: dir.join(DATABASE_FILE), opener, _lock: lock })
    }

    /// Opens the database, making it if it is missing; a file that a crash left behind is repaired.
    pub(super) fn open(&self) -> Result<Database, OpenError> {
        let dir = self.database.parent().unwrap_or(&self.database).to_owned();
        let database = (self.opener)(&self.database).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                OpenError::FolderLocked { dir: dir.clone(), pid: String::new() }
            }
            DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != io::ErrorKind::InvalidData =>
            {
                OpenError::Folder { dir: dir.clone(), source }
            }
            other => OpenError::Damaged { file: self.database.clone(), reason: other.to_string() },
        })?;
        // A new file is durable only when its name is.
        File::open(&dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| OpenError::Folder { dir, source })?;
        Ok(database)
    }

    /// Opens the database again after an I/O error. Linux marks pages clean whose write-back failed, so a later sync
    /// would call them durable although they never reached the disk: every page is made dirty again first.
    pub(super) fn reopen(&self) -> Result<Database, OpenError> {
        rewrite_in_place(&self.database).map_err(|source| {
            let dir = self.database.parent().unwrap_or(&self.database).to_owned();
            OpenError::Folder { dir, source }
        })?;
        self.open()
    }
}

/// Writes every block of a file over itself and syncs. Blocks of zeros are left alone: they may be holes, for which
/// a full disk has no room.
fn rewrite_in_place(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut block = [0; REWRITE_BLOCK_BYTES];
    let mut at = 0_u64;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let length = read_block(&mut file, &mut block)?;
        let Some(bytes) = block.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        if bytes.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
        }
        at = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
    file.sync_all()
}

fn read_block(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut content = vec![0; 3 * REWRITE_BLOCK_BYTES + 17];
        content[REWRITE_BLOCK_BYTES + 5] = 7;
        content[3 * REWRITE_BLOCK_BYTES + 16] = 9;
        std::fs::write(&path, &content).unwrap();
        rewrite_in_place(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}
