//! Runs the built program in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with files, in which commands are run.
pub struct Tool {
    folder: TempDir,
}

/// What a command came to.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Tool {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, with the folders above it.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs the program and waits for its end. Nothing of the caller's environment changes what it does.
    pub fn run(&self, words: &[&str]) -> Ended {
        self.run_with(words, &[])
    }

    pub fn run_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Ended {
        let mut command = Command::cargo_bin("phasegate").unwrap();
        command.current_dir(self.folder.path()).args(words).env_remove("PHASEGATE_STATE");
        for (name, value) in variables {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Fails unless the command ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// The document on stdout, which must say the same exit code as the process.
    #[track_caller]
    pub fn document(&self) -> Value {
        let document: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", self.out, self.err));
        assert_eq!(document["schema_version"], 1, "{document:#}");
        assert_eq!(document["exit"]["code"], self.code, "{document:#}");
        assert!(document["exit"]["reason"].is_string(), "{document:#}");
        document
    }
}
