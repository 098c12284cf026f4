//! Plans made from specs in a folder of their own.

use super::*;
use crate::config::{Address, Listen, Rlimit, UnixType};
use std::sync::atomic::{AtomicU32, Ordering};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

struct Lab {
    dir: PathBuf,
    setup: Setup,
    spec: ServiceSpec,
}

impl Lab {
    fn new(command: &[&str]) -> Lab {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hob-test-plan-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let pairs = [("PATH", "/usr/bin:/bin"), ("HOB_HOME", "/x"), ("NOTIFY_SOCKET", "/outer"), ("LANG", "C")];
        let setup = Setup {
            home: 0xab,
            config_dir: dir.clone(),
            socket: "/run/hob.sock".into(),
            etc: dir.clone(),
            env: pairs.iter().map(|(k, v)| (k.into(), v.into())).collect(),
            ..Setup::default()
        };
        let command = command.iter().map(|s| (*s).to_owned()).collect();
        Lab { dir, setup, spec: ServiceSpec { command, ..ServiceSpec::default() } }
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn make(&self) -> Result<Plan, StartError> {
        let ask = Ask {
            run: RunId(5),
            service: "web",
            spec: &self.spec,
            notify: Some("/n/web"),
            marked: true,
            place: &Place::default(),
        };
        make(&self.setup, ask)
    }

    fn error(&self) -> String {
        let error = self.make().map_or_else(|e| e, |plan| refused(&plan).unwrap());
        assert!(!error.transient);
        error.message
    }

    fn env(&self) -> std::collections::BTreeMap<String, String> {
        let plan = self.make().unwrap();
        let split =
            |c: &CString| c.to_str().unwrap().split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
        plan.envp.iter().map(split).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn sockets_are_told_by_number_and_name_whatever_else_says_so() {
    let mut lab = Lab::new(&["sh"]);
    lab.spec.env.insert("LISTEN_PID".to_owned(), "1".to_owned());
    assert_eq!(lab.env().get("LISTEN_PID").map(String::as_str), Some("1"), "who has none may be told by others");
    let at = || Listen::new(Address::Unix(UnixType::Stream, "/s".to_owned()));
    lab.spec.listen = vec![at(), Listen { name: Some("b c".to_owned()), ..at() }];
    lab.spec.env.insert("LISTEN_FDS".to_owned(), "9".to_owned());
    let env = lab.env();
    assert_eq!((env["LISTEN_FDS"].as_str(), env["LISTEN_FDNAMES"].as_str()), ("2", "web:b c"));
    assert!(!env.contains_key("LISTEN_PID"), "the child puts it in");
    assert_eq!(lab.make().unwrap().pid_variables, [c"LISTEN_PID".to_owned()]);
}

#[test]
fn the_environment_is_layered() {
    let mut lab = Lab::new(&["sh"]);
    lab.file("env", "LANG=file\nB=file\nHOB_RUN=forged\n", 0o600);
    lab.spec.env_file = Some("env".to_owned());
    lab.spec.env.insert("B".to_owned(), "config".to_owned());
    let expected = [
        ("B", "config"),
        ("HOB_RUN", "000000ab-5"),
        ("HOB_SERVICE", "web"),
        ("HOB_SOCKET", "/run/hob.sock"),
        ("LANG", "file"),
        ("NOTIFY_SOCKET", "/n/web"),
        ("PATH", "/usr/bin:/bin"),
    ];
    assert_eq!(lab.env(), expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
}

#[test]
fn who_is_not_hobs_own_user_sees_of_its_environment_only_what_is_no_secret() {
    let mut lab = Lab::new(&["sh"]);
    let (uid, gid) = user::own();
    lab.file("passwd", &format!("me:x:{uid}:{gid}::/home/me:/bin/mysh\n"), 0o644);
    lab.file("group", "", 0o644);
    let inherited = [("API_KEY", "sk-secret"), ("LC_ALL", "C"), ("TZ", "UTC"), ("HOME", "/root"), ("MAIL", "/m")];
    lab.setup.env.extend(inherited.iter().map(|(k, v)| (k.into(), v.into())));
    lab.spec.user = Some(uid.to_string());
    lab.spec.env.insert("OWN".to_owned(), "1".to_owned());
    assert!(lab.env().contains_key("API_KEY"), "a service that is to run as somebody is trusted with it");
    lab.spec.clean_env = true;
    let names: Vec<String> = lab.env().into_keys().collect();
    let expected = [
        "HOB_RUN",
        "HOB_SERVICE",
        "HOB_SOCKET",
        "HOME",
        "LANG",
        "LC_ALL",
        "LOGNAME",
        "NOTIFY_SOCKET",
        "OWN",
        "PATH",
        "SHELL",
        "TZ",
        "USER",
    ];
    assert_eq!(names, expected);
    assert_eq!(lab.env()["HOME"], "/home/me");
    lab.spec.env_from.insert("KEY".to_owned(), "API_KEY".to_owned());
    assert!(lab.error().starts_with("`KEY_env` names a secret of hob's own user"), "{}", lab.error());
}

#[test]
fn errors_of_env_files_name_file_and_line() {
    let mut lab = Lab::new(&["sh"]);
    lab.spec.env_file = Some("env".to_owned());
    let path = lab.dir.join("env").display().to_string();
    assert_eq!(lab.error(), format!("cannot read the env_file {path}: No such file or directory; check `env_file`"));
    lab.file("env", "A=1\nB\n", 0o600);
    assert_eq!(lab.error(), format!("{path}:2: 'B' is not of the form KEY=VALUE"));
    std::fs::write(&path, b"A=1\n\nB=\xff\n").unwrap();
    assert_eq!(lab.error(), format!("{path}:3: this line is not UTF-8"));
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert_eq!(
        lab.error(),
        format!("cannot read the env_file {path}: 1048577 bytes; 1048576 is the most; check `env_file`")
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(lab.error().contains("it is a folder"));
}

#[test]
fn programs_are_looked_up_in_the_jobs_own_path() {
    let mut lab = Lab::new(&["tool"]);
    assert!(lab.error().starts_with("cannot execute tool: not found in PATH; give its full path in \"command\""));
    let tool = lab.file("tool", "#!/bin/sh\n", 0o755);
    lab.spec.env.insert("PATH".to_owned(), format!("/nonexistent:{}", lab.dir.display()));
    assert_eq!(lab.make().unwrap().programs, [CString::new(tool.as_os_str().as_bytes()).unwrap()]);
    lab.file("tool", "#!/bin/sh\n", 0o644);
    assert!(lab.error().ends_with(&format!("it is not executable: chmod +x {}", tool.display())));
}

#[test]
fn a_path_is_taken_from_the_jobs_folder() {
    let mut lab = Lab::new(&["./tool", "x"]);
    lab.file("tool", "#!/bin/sh\n", 0o755);
    lab.spec.cwd = Some(".".to_owned());
    let plan = lab.make().unwrap();
    assert_eq!((plan.programs, plan.argv.len()), (vec![c"./tool".to_owned()], 2));
    lab.spec.cwd = Some("nowhere".to_owned());
    let path = lab.dir.join("nowhere");
    assert_eq!(lab.error(), format!("cannot enter {}: No such file or directory; check `cwd`", path.display()));
    lab.spec.cwd = Some("tool".to_owned());
    assert!(lab.error().contains("it is not a folder"));
    lab.spec.cwd = None;
    let say = r#"cannot execute ./tool in /: No such file or directory; check "command", or set "cwd""#;
    assert_eq!(lab.error(), say);
    lab.spec.command = vec!["/".to_owned()];
    assert_eq!(lab.error(), "cannot execute /: it is a folder; check `command`");
    lab.spec.command = vec![String::new()];
    assert_eq!(lab.error(), "cannot execute anything: `command` is empty");
    lab.spec.command = vec!["sh".to_owned(), "a\0b".to_owned()];
    assert_eq!(lab.error(), "`command` contains a zero byte");
}

#[test]
fn limits_come_from_the_spec_or_from_before_hob() {
    let mut lab = Lab::new(&["sh"]);
    lab.setup.nofile = Some((1024, 4096));
    lab.spec.limits.rlimits = vec![Rlimit { name: "core", soft: Some(0), hard: None }];
    let nofile = rlimit::number("nofile").unwrap();
    let core = rlimit::number("core").unwrap();
    let limits = lab.make().unwrap().rlimits;
    assert!(limits.contains(&(nofile, 1024, 4096)) && limits.contains(&(core, 0, u64::MAX)));
    let mark = tree::tag(0xab, RunId(5));
    assert_eq!(limits.len(), 2 + usize::from(mark.is_some()));
    assert!(mark.is_none_or(|(number, value)| limits.contains(&(number, value, value))));
    lab.spec.limits.rlimits.push(Rlimit { name: "nofile", soft: Some(7), hard: Some(8) });
    assert!(lab.make().unwrap().rlimits.contains(&(nofile, 7, 8)));
    lab.spec.limits.rlimits.push(Rlimit { name: "nosuch", soft: None, hard: None });
    assert_eq!(lab.error(), "this system has no limit 'nosuch'; remove it from `rlimits`");
}

#[test]
fn the_user_brings_ids_home_and_names() {
    let mut lab = Lab::new(&["sh"]);
    let home = lab.dir.display().to_string();
    let (uid, gid) = user::own();
    lab.file("passwd", &format!("me:x:{uid}:{gid}::{home}:/bin/me\nother:x:4711:4712::/nowhere:\n"), 0o600);
    lab.file("group", "ssl:x:110:other\n", 0o600);
    lab.spec.user = Some("me".to_owned());
    let env = lab.env();
    let names = ["HOME", "USER", "LOGNAME", "SHELL"].map(|n| env[n].as_str());
    assert_eq!(names, [home.as_str(), "me", "me", "/bin/me"]);
    assert_eq!(lab.make().unwrap().cwd, CString::new(home).ok());
    lab.spec.env.insert("HOME".to_owned(), "/mine".to_owned());
    assert_eq!(lab.env()["HOME"], "/mine");
    lab.spec.user = Some("x".to_owned());
    assert_eq!(lab.error(), "user 'x' is not in /etc/passwd");
    lab.spec.user = Some("other".to_owned());
    if uid == 0 {
        let plan = lab.make().unwrap();
        assert_eq!((plan.uid, plan.gid, plan.groups), (Some(4711), Some(4712), Some(vec![110, 4712])));
        assert_eq!(plan.cwd, Some(c"/".to_owned()), "a home that does not exist");
        assert!(!lab.env().contains_key("SHELL"));
    } else {
        assert!(lab.error().starts_with(&format!("cannot run as user 'other': hob itself runs as uid {uid}")));
    }
    std::fs::remove_file(lab.dir.join("passwd")).unwrap();
    assert!(lab.error().contains("passwd cannot be read"));
}

#[test]
fn failures_of_the_kernel_say_what_to_do() {
    let lab = Lab::new(&["sh"]);
    let explained = |text: &str| {
        let path = lab.file("script", text, 0o755);
        let plan = Plan { programs: vec![CString::new(path.as_os_str().as_bytes()).unwrap()], ..Plan::default() };
        let error = spawn::spawn(&Plan { argv: vec![c"x".to_owned()], ..plan }, None).unwrap_err();
        explain(&error, None).message
    };
    let path = lab.dir.join("script");
    let wanted = "No such file or directory; the file exists, but its interpreter /no/such does not";
    assert_eq!(explained("#! /no/such -x\n"), format!("cannot execute {}: {wanted}", path.display()));
    assert!(explained("echo\n").ends_with("a script needs a first line such as #!/bin/sh"));
}

#[test]
fn a_limit_or_score_that_is_refused_says_what_it_takes() {
    let told = |step, name: Option<&str>, errno, spec: &ServiceSpec| {
        let path = name.map(str::to_owned);
        explain(&SpawnError { errno, step, path }, Some(spec)).message
    };
    let with = |name, hard| {
        let rlimits = vec![Rlimit { name, soft: Some(1), hard }];
        ServiceSpec::default().with(|s| s.limits.rlimits = rlimits)
    };
    let takes = "takes CAP_SYS_RESOURCE (root has it unless it was taken away)";
    let step = "set the resource limit";
    let text = told(step, Some("nofile"), libc::EPERM, &with("nofile", Some(2)));
    let wanted = "cannot set the resource limit nofile: Operation not permitted; check `rlimits`: raising a hard limit";
    assert_eq!(text, format!("{wanted} {takes}"));
    if let Some(most) = rlimit::open_files_max() {
        for hard in [None, Some(most + 1)] {
            let text = told(step, Some("nofile"), libc::EPERM, &with("nofile", hard));
            assert!(
                text.contains(&format!("; fs.nr_open of this system allows {most}:")) && !text.contains(takes),
                "{text}"
            );
        }
        let text = told(step, Some("core"), libc::EPERM, &with("nofile", None));
        assert!(text.ends_with(takes), "another limit was refused: {text}");
    }
    assert!(told(step, Some("core"), libc::EINVAL, &with("core", None)).ends_with("Invalid argument; check `rlimits`"));
    let text = told("set the oom score", None, libc::EACCES, &ServiceSpec::default());
    assert_eq!(text, format!("cannot set the oom score: Permission denied; an `oom_score` below that of hob {takes}"));
}

#[test]
fn homes_have_different_numbers() {
    assert_ne!(home_id(Path::new("/a")), home_id(Path::new("/b")));
    assert_eq!(home_id(Path::new("/a")), home_id(Path::new("/a")));
}
