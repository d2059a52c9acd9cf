//! A file that is made before what goes into it: where that does not come as a whole, the file goes again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failure::{Failure, tell};

/// Only its owner may read it.
pub const PRIVATE: u32 = 0o600;
/// Others may read it, as far as the process's mask lets them.
pub const SHARED: u32 = 0o666;

/// Dropped before [`NewFile::keep`], it is removed.
pub struct NewFile {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl NewFile {
    /// Makes a file that is not there yet.
    pub fn create(path: &Path, mode: u32) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path);
        match file {
            Ok(file) => Ok(NewFile {
                path: path.to_owned(),
                file,
                is_kept: false,
            }),
            Err(error) => Err(Failure::Arguments(format!(
                "{} can't be made ({error}): name a file that is not there yet",
                path.display()
            ))),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.unwritable(&error))
    }

    /// All of it is there.
    pub fn keep(mut self) -> Result<(), Failure> {
        let synced = self.file.sync_all();
        synced.map_err(|error| self.unwritable(&error))?;
        self.is_kept = true;
        Ok(())
    }

    fn unwritable(&self, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("{} can't be written: {error}", self.path.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept && std::fs::remove_file(&self.path).is_err() {
            tell(&format!(
                "{} is incomplete, and can't be removed: remove it",
                self.path.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let mut file = NewFile::create(&path, PRIVATE).unwrap();
        file.write(b"half").unwrap();
        assert!(matches!(
            NewFile::create(&path, PRIVATE),
            Err(Failure::Arguments(_))
        ));
        drop(file);
        assert!(!path.exists());
        let mut file = NewFile::create(&path, SHARED).unwrap();
        file.write(b"all").unwrap();
        file.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"all");
    }
}
