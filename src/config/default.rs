//! The config that is written on the first start. Touches nothing.

/// All comments but for a job that looks for trouble, so that it runs nothing until somebody edits it.
pub const DEFAULT: &str = r#"// hob.json: what hob keeps running. Comments and trailing commas are allowed.
//   hob config check              tells every mistake in this file, with its line
//   hob reload                    makes changes effective; only what changed is touched
//   hob config show --defaults    lists every key, what it means and its default
{
  // For editors that complete and check by a JSON Schema; hob made that file beside this one.
  "$schema": "./hob.schema.json",

  "services": {
    // A service is a name and a command. This is all that most need:
    // "web": {
    //   "command": ["/usr/bin/python3", "-m", "http.server", "8000"],
    // },

    // A service with more to say; restart, delays, timeouts and log are at their defaults here.
    // "app": {
    //   "command": "exec ./server --port $PORT",  // one string: run by /bin/sh -c
    //   "cwd": "/srv/app",
    //   "env": {"PORT": "8080"},
    //   "user": "www",                // needs a hob that runs as root
    //   "autostart": true,            // start when hob starts
    //   "restart": "on-failure",      // or "always", "never"
    //   "min_delay": "100ms",         // the first restart is immediate, then pauses double from here
    //   "max_delay": "30s",           // up to here
    //   "max_restarts": 0,            // give up after so many in a row; 0: never
    //   "ready": {"port": 8080},      // or "spawned", "notify" (sd_notify), {"log": "listening on"}
    //   "ready_timeout": "60s",
    //   "requires": ["db"],           // started first, once they are ready; stopped after this one
    //   "stop_signal": "SIGTERM",
    //   "stop_timeout": "10s",        // then the whole process tree is killed
    //   "log": {"max_size": "10MB", "max_files": 5},
    // },

    // "db": {
    //   "command": ["/usr/lib/postgresql/bin/postgres", "-D", "/var/lib/postgresql/data"],
    //   "user": "postgres",
    //   "ready": {"log": "ready to accept connections"},
    //   "stop_signal": "SIGINT",
    // },
  },

  "schedule": {
    "jobs": [
      // Looks for trouble as 'hob doctor' does; 'hob schedule list' shows when, and what it found.
      {"id": "health-check", "cron": "0 */6 * * *", "action": {"method": "daemon.doctor"}},
      // {"id": "nightly", "cron": "30 2 * * *", "action": {"restart": "app"}},
      // Tasks that are over stay until somebody removes them; this does, with their output.
      // {"id": "tidy", "cron": "0 4 * * *", "action": {"method": "task.clean", "params": {"age": "30d"}}},
      // {"id": "report", "every": "1h", "action": {"task": {"command": ["./report"], "cwd": "/srv/app"}}},
    ],
  },

  "daemon": {
    // How hob itself behaves; the values shown are the defaults.
    // "shutdown_timeout": "20s",      // for all services together, when hob stops
    // "shutdown_grace": "5s",        // for clients that asked for a moment first (hob inhibit)
    // "log": {"level": "info", "max_size": "50MB", "max_files": 5},
    // "access": [{"group": "wheel", "level": "operate"}],  // default: root and hob's own user alone
  },
}
"#;
