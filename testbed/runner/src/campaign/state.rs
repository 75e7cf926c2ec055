//! The file that says what is done: a line that names the campaign, then a line for each case.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Case, CaseResult};
use crate::{Error, Result};

#[derive(Debug, Deserialize, Serialize)]
struct Header {
    campaign: String,
}

#[derive(Debug)]
pub(super) struct State {
    file: Option<(PathBuf, File)>,
    done: Vec<CaseResult>,
}

impl State {
    pub(super) fn open(path: Option<&Path>, identity: &str, restart: bool) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                file: None,
                done: Vec::new(),
            });
        };
        let fail = |cause: &dyn core::fmt::Display| Error::state(path, cause);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(restart)
            .open(path);
        let mut file = file.map_err(|cause| fail(&cause))?;
        // Two that write into one file would lose what the other did.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(fail(&"another campaign is using it"));
        }
        let (mut done, mut whole, mut first) = (Vec::new(), 0, true);
        let mut reader = BufReader::new(&file);
        let mut line = String::new();
        loop {
            line.clear();
            let read = reader.read_line(&mut line).map_err(|cause| fail(&cause))?;
            // A line without an end was being written when the campaign was killed: it is done again.
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            if first {
                let header: Header = serde_json::from_str(&line)
                    .map_err(|_| fail(&"this is no file of a campaign; --restart overwrites it"))?;
                if header.campaign != identity {
                    return Err(fail(
                        &"it is of another campaign (another image, other settings or faults); --restart begins anew",
                    ));
                }
            } else {
                let result = serde_json::from_str(&line).map_err(|cause| fail(&cause))?;
                done.push(result);
            }
            first = false;
            whole += read as u64;
        }
        file.set_len(whole).map_err(|cause| fail(&cause))?;
        file.seek(SeekFrom::End(0)).map_err(|cause| fail(&cause))?;
        let mut state = Self {
            file: Some((path.to_owned(), file)),
            done,
        };
        if first {
            state.line(&Header {
                campaign: identity.to_owned(),
            })?;
        }
        Ok(state)
    }

    /// What is done of these cases.
    pub(super) fn take(&mut self, cases: &[Case]) -> Vec<CaseResult> {
        let all = core::mem::take(&mut self.done);
        let mine = all.into_iter().filter(|done| cases.contains(&done.case));
        mine.collect()
    }

    pub(super) fn add(&mut self, result: &CaseResult) -> Result<()> {
        self.line(result)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let Some((path, file)) = &mut self.file else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(value).map_err(|cause| Error::state(path, cause))?;
        line.push(b'\n');
        file.write_all(&line)
            .map_err(|cause| Error::state(path, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    fn result(seed: u64) -> CaseResult {
        CaseResult {
            case: Case::new("remap", seed),
            class: Class::Hang,
            fine: false,
            verdict: "TIMED OUT".into(),
            lies: vec!["remap@3=0x1".into()],
            seconds: 1.5,
        }
    }

    #[test]
    fn what_was_written_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.jsonl");
        let open = |identity, restart| State::open(Some(&path), identity, restart);
        let mut state = open("a", false).unwrap();
        assert!(open("a", false).is_err(), "it is in use");
        state.add(&result(1)).unwrap();
        state.add(&result(2)).unwrap();
        drop(state);
        // As if it had been killed while it wrote.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"faults\":\"re").unwrap();
        drop(file);
        let mut state = open("a", false).unwrap();
        let cases = [Case::new("remap", 2), Case::new("remap", 3)];
        assert_eq!(state.take(&cases), [result(2)]);
        state.add(&result(3)).unwrap();
        drop(state);
        assert!(open("b", false).is_err());
        assert_eq!(open("a", false).unwrap().take(&cases).len(), 2);
        assert!(open("b", true).unwrap().take(&cases).is_empty());
        std::fs::write(&path, "no campaign\n").unwrap();
        assert!(open("b", false).is_err());
    }
}
