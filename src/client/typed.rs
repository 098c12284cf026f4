//! The methods of hob by name, with answers as plain values; [`Client::call`] is below them all.
//!
//! ```no_run
//! use hob::client::{Client, State};
//!
//! let mut hob = Client::connect("/run/hob/hob.sock")?;
//! for service in hob.services()? {
//!     if service.state == State::Failed {
//!         println!("{}", hob.why(&service.name)?.summary);
//!     }
//! }
//! if let Err(e) = hob.start("web") {
//!     // "web did not come up: exit code 1", and "hob why web".
//!     eprintln!("{} {}", e.message(), e.hint().unwrap_or_default());
//! }
//! # Ok::<(), hob::client::ClientError>(())
//! ```

use super::types::{Changed, Detail, Events, Health, History, Reloaded, Service, Status, Stopping, Why};
use super::{Client, ClientError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Answers that hold a list of services.
#[derive(Deserialize)]
struct Services<T> {
    services: Vec<T>,
}

impl Client {
    /// Whether all is well, in few numbers.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn health(&mut self) -> Result<Health, ClientError> {
        self.call("daemon.health", &json!({}))
    }

    /// The daemon and all that it keeps.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.call("daemon.status", &json!({}))
    }

    /// All services, by name.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn services(&mut self) -> Result<Vec<Service>, ClientError> {
        Ok(self.call::<Services<Service>>("service.list", &json!({}))?.services)
    }

    /// One service in detail.
    ///
    /// # Errors
    /// As [`Client::call`]; `NotFound` when there is none of that name.
    pub fn service(&mut self, name: &str) -> Result<Detail, ClientError> {
        self.call("service.get", &json!({ "name": name }))
    }

    /// The last runs of a service, `limit` of them at most, the latest last.
    ///
    /// # Errors
    /// As [`Client::call`]; `NotFound` when there is none of that name.
    pub fn history(&mut self, name: &str, limit: usize) -> Result<History, ClientError> {
        self.call("service.history", &json!({ "name": name, "limit": limit }))
    }

    /// Why a service is as it is, what happened, what comes next and what a person can do.
    ///
    /// # Errors
    /// As [`Client::call`]; `NotFound` when there is none of that name.
    pub fn why(&mut self, name: &str) -> Result<Why, ClientError> {
        self.call("daemon.why", &json!({ "name": name }))
    }

    /// Starts a service with all that it requires, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Client::call`]; `Unavailable` when it does not come up, with the reason.
    pub fn start(&mut self, name: &str) -> Result<Changed, ClientError> {
        self.change("service.start", name)
    }

    /// Stops a service, after all that require it, and waits until nothing of it is left. It stays down until somebody
    /// starts it.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn stop(&mut self, name: &str) -> Result<Changed, ClientError> {
        self.change("service.stop", name)
    }

    /// Stops a service and starts it again, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub fn restart(&mut self, name: &str) -> Result<Changed, ClientError> {
        self.change("service.restart", name)
    }

    fn change(&mut self, method: &str, name: &str) -> Result<Changed, ClientError> {
        let all: Services<Changed> = self.call(method, &json!({ "name": name }))?;
        let missing = || ClientError::Unexpected(format!("the answer to {method} names no service"));
        all.services.into_iter().find(|s| s.name == name).ok_or_else(missing)
    }

    /// Sends a signal, by its name or number, to the main process of a service.
    ///
    /// # Errors
    /// As [`Client::call`]; `Unavailable` when it has no process.
    pub fn signal(&mut self, name: &str, signal: &str) -> Result<(), ClientError> {
        self.call::<serde::de::IgnoredAny>("service.signal", &json!({ "name": name, "signal": signal })).map(drop)
    }

    /// Returns a service to what `autostart` says.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn reset(&mut self, name: &str) -> Result<(), ClientError> {
        self.call::<serde::de::IgnoredAny>("service.reset", &json!({ "name": name })).map(drop)
    }

    /// Reads the config again: all of it takes effect, or nothing.
    ///
    /// # Errors
    /// As [`Client::call`]; `InvalidParams` with every mistake in the file.
    pub fn reload(&mut self) -> Result<Reloaded, ClientError> {
        self.call("daemon.reload", &json!({}))
    }

    /// Begins to stop all services and hob itself.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn shutdown(&mut self) -> Result<Stopping, ClientError> {
        self.call("daemon.shutdown", &json!({}))
    }

    /// The last `limit` events of these kinds (`service.*`; none: all) and services (none: all). For what comes, see
    /// [`Client::subscribe`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn events(&mut self, kinds: &[&str], names: &[String], limit: usize) -> Result<Events, ClientError> {
        self.call("event.history", &json!({ "kinds": kinds, "names": names, "limit": limit }))
    }

    /// The config in effect, with its defaults, into any type.
    ///
    /// # Errors
    /// As [`Client::call`]; `PermissionDenied` for whoever is no admin.
    pub fn config<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        self.call("daemon.config", &json!({}))
    }
}
