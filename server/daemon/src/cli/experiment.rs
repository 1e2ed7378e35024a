//! Ray Tune's folder of an experiment, which a second run may have been logged into as well.
//!
//! Tune appends the exploits of every run to one `pbt_global.txt`, where trials have their tags, such as `3_lr=0.1`. Those
//! of two runs may be the same. The id of a trial, such as `a1b2c_00003`, begins with its run, and names the log of its
//! own lineage.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use pba_schedules::formats;

use crate::cli::file;

/// The log that Ray Tune keeps of a whole population.
pub(crate) const GLOBAL_LOG: &str = "pbt_global.txt";
/// Beginning of a file in which Tune keeps the state of a run; it has the ids of its trials, the first of them at once.
const STATE: &str = "experiment_state-";
/// As much of a state as is read.
const STATE_BYTES: u64 = 1 << 20;

/// The folder whose population's log is meant by a path, if it is one.
pub(crate) fn folder_of(path: &Path) -> Option<&Path> {
    if path.is_dir() {
        return Some(path);
    }
    let is_log = path.file_name() == Some(OsStr::new(GLOBAL_LOG));
    path.parent().filter(|_| is_log).map(|folder| if folder == "" { Path::new(".") } else { folder })
}

/// The log from which the lineage of a trial is read, and the trial if it is a log of several.
///
/// # Errors
/// When the folder cannot be read, or holds several runs and it is not clear of which the trial is, or how its lineage
/// can be told from those of another run.
pub(crate) fn log_of<'a>(folder: &Path, trial: &'a str) -> anyhow::Result<(PathBuf, Option<&'a str>)> {
    let global = folder.join(GLOBAL_LOG);
    let Runs { own, runs } = Runs::of(folder)?;
    let shown = folder.display();
    let listed = || runs.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Some((run, number)) = id(trial).filter(|_| !is_tag(&global, trial)) else {
        match runs.first() {
            Some(first) if runs.len() > 1 => bail!(
                "{shown} holds several runs, {}, and --trial {trial:?} does not say of which it is; give the trial's id, \
                 which begins with its run, as in {first}_00003",
                listed()
            ),
            _ => return Ok((global, Some(trial))),
        }
    };
    if runs.is_empty() {
        // Nothing in the folder says whose log it is.
        return Ok((global, Some(trial)));
    }
    if !runs.contains(run) {
        bail!(
            "--trial {trial:?} is of no run in {shown}; the ids of its trials begin with {}",
            runs.iter().map(|run| format!("{run}_")).collect::<Vec<_>>().join(" or ")
        );
    }
    let logged: BTreeSet<&str> = own.keys().map(|(run, _)| &**run).collect();
    if let Some(own) = own.get(&(run.to_owned(), number)).filter(|_| logged.len() > 1) {
        return Ok((own.clone(), None));
    }
    if logged.iter().all(|logged| *logged == run) {
        return Ok((global, Some(trial)));
    }
    if logged.contains(run) {
        bail!(
            "{shown} holds several runs, {}, which {GLOBAL_LOG} does not tell apart, and there is no log of the trial \
             {trial:?} alone, as it copied no other",
            listed()
        );
    }
    bail!("no trial of the run {run} copied another, so that no log in {shown} has the trial {trial:?}")
}

/// What a folder says of its runs.
struct Runs {
    /// The logs of single trials, by run and number.
    own: BTreeMap<(String, u64), PathBuf>,
    /// The runs, also those that logged nothing.
    runs: BTreeSet<String>,
}

impl Runs {
    fn of(folder: &Path) -> anyhow::Result<Runs> {
        let cannot = || format!("cannot read {}", folder.display());
        let (mut own, mut runs) = (BTreeMap::new(), BTreeSet::new());
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let of_trial = name.strip_prefix("pbt_policy_").and_then(|rest| rest.strip_suffix(".txt"));
            if let Some((run, number)) = of_trial.and_then(id) {
                runs.insert(run.to_owned());
                own.insert((run.to_owned(), number), entry.path());
            } else if name.starts_with(STATE) {
                runs.extend(run_of(&entry.path())?);
            }
        }
        Ok(Runs { own, runs })
    }
}

/// The run of which a file holds the state.
fn run_of(state: &Path) -> anyhow::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = File::open(state).and_then(|file| file.take(STATE_BYTES).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", state.display()))?;
    // JSON in the strings of JSON: \"trial_id\": \"a1b2c_00003\"
    let text = String::from_utf8_lossy(&bytes);
    let ids = text.split("trial_id").skip(1).map(|rest| {
        let rest = rest.trim_start_matches(['\\', '"', ':', ' ']);
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
    });
    Ok(ids.filter_map(id).map(|(run, _)| run.to_owned()).next())
}

/// Run and number of a trial's id, if it is one.
fn id(text: &str) -> Option<(&str, u64)> {
    let (run, number) = text.rsplit_once('_')?;
    let is_run = !run.is_empty() && run.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    Some(run).filter(|_| is_run && is_number).zip(number.parse().ok())
}

/// Whether a trial of a log has this tag, letter by letter.
fn is_tag(log: &Path, trial: &str) -> bool {
    let found = file::read(log).ok().and_then(|text| formats::lineage_of(&text, Some(trial)).ok());
    found.flatten().is_some_and(|tag| tag == trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_run_and_a_number() {
        for (text, expected) in [
            ("a1b2c_00003", Some(("a1b2c", 3))),
            ("3", None),
            ("3_lr=0.1", None),
            ("3_seed=1_00001", None),
            ("_3", None),
            ("a1b2c_", None),
            ("a1b2c_+3", None),
        ] {
            assert_eq!(id(text), expected, "{text}");
        }
    }

    #[test]
    fn a_folder_is_meant_by_its_log() {
        for (path, expected) in
            [("pbt_global.txt", Some(".")), ("a/b/pbt_global.txt", Some("a/b")), ("a/pbt_policy_0.txt", None)]
        {
            assert_eq!(folder_of(Path::new(path)), expected.map(Path::new));
        }
    }
}
