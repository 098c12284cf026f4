//! Where hob keeps its files: one struct computed from values, so that tests and the keeper need no environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// All paths of one hob. `home` is absolute and is the identity of this hob on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Prefix of everything with `--home`; otherwise the state folder.
    pub home: PathBuf,
    pub config: PathBuf,
    pub run: PathBuf,
    pub state: PathBuf,
    pub logs: PathBuf,
    /// The control socket; `@name` in the file name alone means an abstract socket on Linux.
    pub socket: PathBuf,
    pub pid: PathBuf,
    pub lock: PathBuf,
    pub heartbeat: PathBuf,
    pub state_json: PathBuf,
    /// The daemon's own log.
    pub log: PathBuf,
}

/// What the paths depend on; the command line fills it from flags and environment.
#[derive(Clone, Debug, Default)]
pub struct PathInput {
    pub root: bool,
    /// `--home` or HOB_HOME, made absolute by the caller.
    pub home: Option<PathBuf>,
    pub user_home: Option<PathBuf>,
    pub xdg_config: Option<PathBuf>,
    pub xdg_runtime: Option<PathBuf>,
    pub xdg_state: Option<PathBuf>,
    /// `--config` or HOB_CONFIG, `--socket` or HOB_SOCKET, HOB_PID, HOB_LOG.
    pub config: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub pid: Option<PathBuf>,
    pub log: Option<PathBuf>,
    /// `/run`, or `/var/run` on BSD and macOS.
    pub system_run: PathBuf,
}

impl Paths {
    /// Resolves the paths, or says what is missing to do so.
    ///
    /// # Errors
    /// When an ordinary user has neither `--home` nor a home directory.
    pub fn resolve(i: &PathInput) -> Result<Paths, String> {
        let (home, config_dir, run, state, logs) = if let Some(h) = &i.home {
            (h.clone(), h.clone(), h.join("run"), h.join("state"), h.join("logs"))
        } else if i.root {
            let state = PathBuf::from("/var/lib/hob");
            (state.clone(), "/etc/hob".into(), i.system_run.join("hob"), state, "/var/log/hob".into())
        } else {
            let base = |given: &Option<PathBuf>, below: &str| match (given, &i.user_home) {
                (Some(p), _) if p.is_absolute() => Ok(p.join("hob")),
                (_, Some(h)) => Ok(h.join(below).join("hob")),
                _ => Err("no home directory is known: set HOME, or name a folder with --home DIR".to_owned()),
            };
            let state = base(&i.xdg_state, ".local/state")?;
            let run =
                i.xdg_runtime.as_ref().filter(|p| p.is_absolute()).map_or_else(|| state.join("run"), |p| p.join("hob"));
            (state.clone(), base(&i.xdg_config, ".config")?, run, state.clone(), state.join("logs"))
        };
        Ok(Paths {
            config: i.config.clone().unwrap_or_else(|| config_dir.join("hob.json")),
            socket: i.socket.clone().unwrap_or_else(|| run.join("hob.sock")),
            pid: i.pid.clone().unwrap_or_else(|| run.join("hob.pid")),
            log: i.log.clone().unwrap_or_else(|| logs.join("hob.log")),
            lock: run.join("hob.lock"),
            heartbeat: run.join("heartbeat"),
            state_json: run.join("state.json"),
            home,
            run,
            state,
            logs,
        })
    }

    /// The paths as `key=value` words for the command line of the daemon, which is told them and looks up nothing.
    #[must_use]
    pub fn to_words(&self) -> Vec<OsString> {
        let pairs = [
            ("home", &self.home),
            ("config", &self.config),
            ("run", &self.run),
            ("state", &self.state),
            ("logs", &self.logs),
            ("socket", &self.socket),
            ("pid", &self.pid),
            ("lock", &self.lock),
            ("heartbeat", &self.heartbeat),
            ("state_json", &self.state_json),
            ("log", &self.log),
        ];
        let word = |(key, path): (&str, &PathBuf)| {
            let mut w = OsString::from(format!("{key}="));
            w.push(path);
            w
        };
        pairs.into_iter().map(word).collect()
    }

    /// The opposite of `to_words`; words of other keys are left to the caller.
    #[must_use]
    pub fn from_words(words: &[OsString]) -> Option<Paths> {
        let get = |key: &str| {
            words.iter().find_map(|w| {
                let rest = w.as_encoded_bytes().strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
                Some(PathBuf::from(OsStr::from_bytes(rest)))
            })
        };
        Some(Paths {
            home: get("home")?,
            config: get("config")?,
            run: get("run")?,
            state: get("state")?,
            logs: get("logs")?,
            socket: get("socket")?,
            pid: get("pid")?,
            lock: get("lock")?,
            heartbeat: get("heartbeat")?,
            state_json: get("state_json")?,
            log: get("log")?,
        })
    }

    /// The log of a service.
    #[must_use]
    pub fn service_log(&self, name: &str) -> PathBuf {
        self.logs.join("services").join(format!("{name}.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_puts_everything_under_one_folder() {
        let p = Paths::resolve(&PathInput { home: Some("/h".into()), root: true, ..PathInput::default() }).unwrap();
        assert_eq!(p.config, PathBuf::from("/h/hob.json"));
        assert_eq!(p.socket, PathBuf::from("/h/run/hob.sock"));
        assert_eq!(p.service_log("web"), PathBuf::from("/h/logs/services/web.log"));
        assert_eq!(Paths::from_words(&p.to_words()), Some(p.clone()));
        assert_eq!(Paths::from_words(&p.to_words()[1..]), None);
    }

    #[test]
    fn users_get_xdg_folders_and_never_tmp() {
        let i = PathInput {
            user_home: Some("/home/u".into()),
            xdg_runtime: Some("/run/user/7".into()),
            ..PathInput::default()
        };
        let p = Paths::resolve(&i).unwrap();
        assert_eq!(p.config, PathBuf::from("/home/u/.config/hob/hob.json"));
        assert_eq!(p.run, PathBuf::from("/run/user/7/hob"));
        assert_eq!(p.state, PathBuf::from("/home/u/.local/state/hob"));
        let p = Paths::resolve(&PathInput { xdg_runtime: None, ..i }).unwrap();
        assert_eq!(p.run, PathBuf::from("/home/u/.local/state/hob/run"));
        assert!(Paths::resolve(&PathInput::default()).is_err());
    }
}
