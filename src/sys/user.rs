//! Users and groups: numbers, or names looked up in the text of /etc/passwd and /etc/group. No NSS, which a static
//! binary must not call.

use std::path::Path;

/// A user as a job needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Empty for a number that /etc/passwd does not know.
    pub name: String,
    pub home: String,
    pub shell: String,
    /// Supplementary groups, the primary one included, ascending.
    pub groups: Vec<u32>,
}

/// The two files as text, read once for one lookup.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads `passwd` and `group` in a folder, /etc on a real system. A missing group file is taken as an empty one.
    ///
    /// # Errors
    /// A sentence without a full stop when passwd cannot be read.
    pub fn read(etc: &Path) -> Result<Accounts, String> {
        let text = |name: &str| {
            let path = etc.join(name);
            std::fs::read(&path)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .map_err(|e| format!("{} cannot be read: {e}", path.display()))
        };
        Ok(Accounts { passwd: text("passwd")?, group: text("group").unwrap_or_default() })
    }

    #[must_use]
    pub fn from_text(passwd: &str, group: &str) -> Accounts {
        Accounts { passwd: passwd.to_owned(), group: group.to_owned() }
    }

    /// A user by name or number, with the groups that list it. `group`, by name or number, replaces the primary group.
    ///
    /// # Errors
    /// A sentence without a full stop, such as `user 'x' is not in /etc/passwd`.
    pub fn user(&self, user: &str, group: Option<&str>) -> Result<User, String> {
        let wanted = group.map(|g| self.group(g)).transpose()?;
        let number = parse_id(user);
        // A name is tried first: names made of digits alone are allowed by some systems.
        let entry = self.entries().find(|e| e.name == user).or_else(|| {
            let uid = number?;
            self.entries().find(|e| e.uid == uid)
        });
        let Some(entry) = entry else {
            let Some(uid) = number else { return Err(format!("user '{user}' is not in /etc/passwd")) };
            let gid = wanted.ok_or_else(|| {
                format!("user {uid} is not in /etc/passwd, so that its group is not known: name it with `group`")
            })?;
            return Ok(User { uid, gid, groups: vec![gid], ..User::default() });
        };
        let gid = wanted.unwrap_or(entry.gid);
        let mut groups = self.groups_of(entry.name);
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(User {
            uid: entry.uid,
            gid,
            name: entry.name.to_owned(),
            home: entry.home.to_owned(),
            shell: entry.shell.to_owned(),
            groups,
        })
    }

    /// The number of a user given by name or number; a number need not be in /etc/passwd.
    ///
    /// # Errors
    /// `user 'x' is not in /etc/passwd`.
    pub fn uid(&self, user: &str) -> Result<u32, String> {
        let named = self.entries().find(|e| e.name == user).map(|e| e.uid);
        named.or_else(|| parse_id(user)).ok_or_else(|| format!("user '{user}' is not in /etc/passwd"))
    }

    /// The number of a group given by name or number.
    ///
    /// # Errors
    /// `group 'x' is not in /etc/group`.
    pub fn group(&self, group: &str) -> Result<u32, String> {
        let named = self.group.lines().find_map(|line| {
            let (name, gid, _) = group_fields(line)?;
            (name == group).then_some(gid)
        });
        named.or_else(|| parse_id(group)).ok_or_else(|| format!("group '{group}' is not in /etc/group"))
    }

    /// The users of a group: those it lists, and those whose primary group it is.
    #[must_use]
    pub fn members(&self, gid: u32) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.entries().filter(|e| e.gid == gid || self.groups_of(e.name).contains(&gid)).map(|e| e.uid).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The groups that list a user as a member.
    fn groups_of(&self, name: &str) -> Vec<u32> {
        let lists = |line| {
            let (_, gid, members) = group_fields(line)?;
            members.split(',').any(|m| m == name).then_some(gid)
        };
        self.group.lines().filter_map(lists).collect()
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(passwd_fields)
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

/// `name:password:uid:gid:comment:home:shell`; lines that are not like that, comments and NIS markers among them, are
/// passed over.
fn passwd_fields(line: &str) -> Option<Entry<'_>> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, uid, gid, _, home, shell] if is_name(name) => {
            Some(Entry { name, uid: parse_id(uid)?, gid: parse_id(gid)?, home, shell })
        }
        _ => None,
    }
}

/// `name:password:gid:member,member`.
fn group_fields(line: &str) -> Option<(&str, u32, &str)> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, gid, members] if is_name(name) => Some((name, parse_id(gid)?, members.trim_end())),
        _ => None,
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['+', '-', '#'])
}

/// Digits alone; the highest value means "no change" to the kernel and is no user.
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// Effective user and group of this process.
#[must_use]
pub fn own() -> (u32, u32) {
    // SAFETY: these calls have no preconditions and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
# a comment:x:1:1:::
+nis::::::
www:x:33:33:Web, Server:/var/www:/usr/sbin/nologin
broken:x:thirty:1::/:/bin/sh
short:x:5:5
1234:x:50:51::/odd:/bin/sh
huge:x:4294967296:1::/:/bin/sh
nobody:x:4294967295:1::/:/bin/sh
twin:x:33:99::/twin:
";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nssl:x:110:www,postgres\nadm:x:4:syslog,www\nlog:x:9:wwww\nbad:x:z:www\n";

    fn accounts() -> Accounts {
        Accounts::from_text(PASSWD, GROUP)
    }

    #[test]
    fn a_name_brings_home_shell_and_every_group_that_lists_it() {
        let u = accounts().user("www", None).unwrap();
        assert_eq!((u.uid, u.gid, u.home.as_str(), u.shell.as_str()), (33, 33, "/var/www", "/usr/sbin/nologin"));
        assert_eq!(u.groups, [4, 33, 110]);
        let u = accounts().user("www", Some("ssl")).unwrap();
        assert_eq!((u.gid, u.groups), (110, vec![4, 110]));
    }

    #[test]
    fn a_group_has_those_it_lists_and_those_who_begin_in_it() {
        assert_eq!(accounts().members(110), [33]);
        assert_eq!(accounts().members(51), [50]);
        assert_eq!(accounts().members(99), [33], "a second name for the same number");
        assert!(accounts().members(9).is_empty());
    }

    #[test]
    fn numbers_work_with_and_without_an_entry() {
        assert_eq!(accounts().user("33", None).unwrap().name, "www", "the first entry with the number");
        let u = accounts().user("7777", Some("12")).unwrap();
        assert_eq!((u.uid, u.gid, u.groups, u.home.as_str()), (7777, 12, vec![12], ""));
        assert_eq!(accounts().user("1234", None).unwrap().uid, 50, "a name of digits is a name first");
        assert_eq!(["www", "1234", "7777"].map(|u| accounts().uid(u)), [Ok(33), Ok(50), Ok(7777)]);
        assert!(accounts().uid("x").is_err() && accounts().uid("4294967295").is_err());
    }

    #[test]
    fn errors_say_what_is_missing_and_where() {
        let error = |user, group| accounts().user(user, group).unwrap_err();
        assert_eq!(error("x", None), "user 'x' is not in /etc/passwd");
        assert_eq!(error("www", Some("y")), "group 'y' is not in /etc/group");
        assert!(error("7777", None).contains("name it with `group`"));
        for name in ["", "-1", "+nis", "# a comment", "broken", "short", "huge", "4294967295", "nobody", " 33"] {
            assert!(accounts().user(name, None).is_err(), "{name}");
        }
    }

    #[test]
    fn the_real_files_know_root() {
        assert_eq!(Accounts::read(Path::new("/etc")).unwrap().user("root", None).unwrap().uid, 0);
        assert!(Accounts::read(Path::new("/nonexistent")).unwrap_err().contains("/nonexistent/passwd"));
    }
}
