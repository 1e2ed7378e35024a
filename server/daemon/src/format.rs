//! The versions of what a data directory holds: which this server writes, and which it refuses.
//!
//! The directory as a whole has one, in [`FILE`], and so has each kind of file in it:
//!
//! | what | says its format in | versions that are read |
//! | --- | --- | --- |
//! | the directory | `format.json` | [`DIRECTORY`]; without the file, that of the servers before there was one |
//! | `datasets/DIGEST/SPLIT.arrow` | its schema, and the digest in its folder's name | `pba_datasets`; another version has other folders |
//! | `schedules/NAME.json` | its field `format` | `pba_schedules::formats::json` |
//! | `searches/ID/search.json`, `request.json`, and likewise for other jobs | its field `format` | [`JOB`] |
//! | `searches/ID/events.jsonl`, `schedule-digests.json`, `spec.json`, `finish`, `schedules/NAME.json` | the job's entry | [`JOB`], for all of the folder |
//! | `searches/ID/checkpoint-EPOCH.safetensors` | its head | the trainer |
//!
//! A version rises when servers before it would misread a file. What a newer server wrote is neither read nor changed
//! nor removed. A server refuses to start in a directory of a newer format; a job or a schedule of one is left out, and
//! `/readyz` says so.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The format of a data directory.
pub(crate) const DIRECTORY: Format = Format { name: "pba-data", version: 1 };
/// The format of a job's folder.
pub(crate) const JOB: Format = Format { name: "pba-job", version: 1 };

/// The file in a data directory that says its format.
const FILE: &str = "format.json";
/// Most bytes of it that are read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The version of this server.
const SERVER: &str = crate::version::VERSION;

/// A format and its version, as `pba-data/1`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    name: &'static str,
    version: u32,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// A format that this server does not read.
#[derive(Debug, thiserror::Error)]
#[error("its format is {said:?}, and pba {SERVER} reads {reads}; {remedy}")]
pub(crate) struct OtherFormat {
    said: String,
    reads: Format,
    remedy: String,
}

impl Format {
    /// Checks that this is the format that a file says; `by` is the version of the server that wrote it, if known.
    ///
    /// # Errors
    /// When it is another one, with what to do.
    pub(crate) fn check(self, said: &str, by: Option<&str>) -> Result<(), OtherFormat> {
        if said == self.to_string() {
            return Ok(());
        }
        let remedy = match (is_newer(said, self), by) {
            (true, Some(by)) => format!("pba {by} wrote it: use that version, or a newer one"),
            (true, None) => "a newer version of pba wrote it: use that version".to_owned(),
            (false, _) => "restore it from a copy".to_owned(),
        };
        Err(OtherFormat { said: said.to_owned(), reads: self, remedy })
    }
}

/// Whether a format is a version after a known one.
fn is_newer(said: &str, known: Format) -> bool {
    let version = said.strip_prefix(known.name).and_then(|rest| rest.strip_prefix('/')?.parse::<u32>().ok());
    version.is_some_and(|version| version > known.version)
}

/// The content of [`FILE`]. Later versions may say more.
#[derive(Serialize, Deserialize)]
struct Said {
    format: String,
    /// The version of the server that gave the directory this format.
    version: String,
}

/// Checks that a data directory, which need not be there, has a format that this server reads. Nothing is written.
///
/// # Errors
/// When it has another one, or it cannot be told.
pub(crate) fn check(directory: &Path) -> anyhow::Result<()> {
    read(directory).map(drop)
}

/// Says the format in a data directory that does not say it yet. The caller has the right to write there.
///
/// # Errors
/// As [`check`]; when the disk does not take it.
pub(crate) fn say(directory: &Path) -> anyhow::Result<()> {
    if read(directory)?.is_some() {
        return Ok(());
    }
    let said = Said { format: DIRECTORY.to_string(), version: SERVER.to_owned() };
    let path = directory.join(FILE);
    pba_files::replace(&path, &serde_json::to_vec_pretty(&said)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What a data directory says of its format, if it does; it is one that this server reads.
fn read(directory: &Path) -> anyhow::Result<Option<Said>> {
    let path = directory.join(FILE);
    let text = match pba_files::read_text(&path, FILE_BYTES_MAX) {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let said: Said = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} does not say the format of the data directory; restore it from a copy, or remove it if no newer version \
             than pba {SERVER} has written there",
            path.display()
        )
    })?;
    DIRECTORY.check(&said.format, Some(&said.version)).with_context(|| {
        format!(
            "the data directory {} cannot be used; choose another one with --data-dir",
            directory.display()
        )
    })?;
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(directory: &Path) -> String {
        std::fs::read_to_string(directory.join(FILE)).unwrap()
    }

    #[test]
    fn a_directory_says_its_format_once() {
        let folder = tempfile::tempdir().unwrap();
        check(&folder.path().join("missing")).unwrap();
        check(folder.path()).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "a look writes nothing");
        say(folder.path()).unwrap();
        assert!(said(folder.path()).contains("pba-data/1"));
        // One of an earlier release with the same format stays that release's.
        let earlier = said(folder.path()).replace(SERVER, "0.0.9");
        std::fs::write(folder.path().join(FILE), &earlier).unwrap();
        say(folder.path()).unwrap();
        assert_eq!(said(folder.path()), earlier);
    }

    #[test]
    fn other_formats_are_refused_with_what_to_do_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        for (text, says) in [
            (
                r#"{"format": "pba-data/2", "version": "9.1.0", "more": []}"#,
                "pba 9.1.0 wrote it: use that version",
            ),
            (r#"{"format": "pba-data/0", "version": "0.0.1"}"#, "restore it from a copy"),
            ("", "remove it if no newer version"),
        ] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            for refused in [check(folder.path()), say(folder.path())] {
                let error = format!("{:#}", refused.unwrap_err());
                assert!(error.contains(says), "{error}");
            }
            assert_eq!(said(folder.path()), text);
        }
    }

    #[test]
    fn a_version_is_a_number() {
        let newer = |said| is_newer(said, JOB);
        assert!(newer("pba-job/2") && newer("pba-job/10"));
        for other in ["pba-job/1", "pba-job/0", "pba-jobs/2", "pba-job/2a", "pba-job", ""] {
            assert!(!newer(other), "{other}");
        }
    }
}
