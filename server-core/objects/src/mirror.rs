use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, RetryConfig};
use tempfile::TempDir;
use trireme_repository::{FoundModel, Lease, Remote, RepositoryError, Which, is_model_name};

use crate::address::Address;
use crate::connector::Connector;
use crate::error::{ObjectsError, chain};
use crate::fetch::{Copy, Trouble, copy};
use crate::listing::{self, Files};

/// How often and how long a call is tried again.
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(20);
/// How often a model is copied anew because it has changed meanwhile.
const TRIES: usize = 3;

/// A repository in an object store, and the copies of its models.
pub struct Mirror {
    address: String,
    store: Box<dyn ObjectStore>,
    prefix: ObjectPath,
    root: TempDir,
    view: PathBuf,
    models: Mutex<BTreeMap<String, Model>>,
    runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Model {
    copy: Option<Arc<Copy>>,
    /// Why there is none of what the store holds now.
    problem: Option<String>,
}

impl Mirror {
    /// Gets ready to copy from `address`; nothing is asked for yet. Who asks is told by the usual variables of the
    /// environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_DEFAULT_REGION`, …).
    ///
    /// # Errors
    /// An address that cannot be read, credentials that are not there, no room for copies.
    pub fn open(address: &str) -> Result<Self, ObjectsError> {
        let parsed = Address::parse(address)?;
        check_environment(address, &parsed)?;
        let address = address.to_owned();
        let client = |error: &dyn std::error::Error| ObjectsError::Client {
            address: address.clone(),
            why: chain(error),
        };
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&parsed.bucket)
            .with_retry(retry)
            .with_http_connector(Connector { plain: parsed.is_plain() });
        if let Some(endpoint) = &parsed.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(parsed.is_plain())
                .with_virtual_hosted_style_request(false);
        }
        let store = builder.build().map_err(|error| client(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| client(&error))?;
        let room = |error| ObjectsError::Room { address: address.clone(), error };
        let mut place = tempfile::Builder::new();
        // Models are read by this server alone.
        place.prefix("trireme-s3-").permissions(fs::Permissions::from_mode(0o700));
        let root = match std::env::var_os("TRITON_AWS_MOUNT_DIRECTORY").filter(|path| !path.is_empty()) {
            Some(directory) => place.tempdir_in(directory),
            None => place.tempdir(),
        };
        let root = root.map_err(room)?;
        let view = root.path().join("view");
        fs::create_dir(&view).map_err(room)?;
        let view = view.canonicalize().map_err(room)?;
        let prefix = ObjectPath::from(parsed.prefix.as_str());
        Ok(Self { address, store: Box::new(store), prefix, root, view, models: Mutex::default(), runtime })
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<String, Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self, reason: impl Into<String>) -> RepositoryError {
        RepositoryError::Away { path: PathBuf::from(&self.address), reason: reason.into() }
    }

    async fn refresh_all(&self, models: &mut BTreeMap<String, Model>) -> Result<(), RepositoryError> {
        let found = self.list(None).await?;
        for gone in models.keys().filter(|name| !found.contains_key(*name)).cloned().collect::<Vec<_>>() {
            self.remove(models, &gone)?;
        }
        for (name, files) in found {
            self.refresh_one(models, &name, files, false).await?;
        }
        Ok(())
    }

    async fn refresh_some(
        &self,
        models: &mut BTreeMap<String, Model>,
        wanted: &[String],
    ) -> Result<(), RepositoryError> {
        let names = listing::names(&*self.store, &self.prefix).await;
        let names: BTreeSet<String> = names
            .map_err(|error| self.away(chain(&error)))?
            .into_iter()
            .filter(|name| is_model_name(name))
            .collect();
        for gone in models.keys().filter(|name| !names.contains(*name)).cloned().collect::<Vec<_>>() {
            self.remove(models, &gone)?;
        }
        for name in names {
            if wanted.contains(&name) {
                let files = self.list(Some(&name)).await?.remove(&name).unwrap_or_default();
                self.refresh_one(models, &name, files, true).await?;
            } else if let Entry::Vacant(place) = models.entry(name) {
                // Somebody may want to know that it is there; it is copied when it is to be loaded.
                let shown = self.view.join(place.key());
                fs::create_dir_all(shown).map_err(|error| self.away(error.to_string()))?;
                place.insert(Model::default());
            }
        }
        Ok(())
    }

    async fn list(&self, only: Option<&str>) -> Result<BTreeMap<String, Files>, RepositoryError> {
        let mut found = listing::models(&*self.store, &self.prefix, only)
            .await
            .map_err(|error| self.away(chain(&error)))?;
        found.retain(|name, _| {
            let fine = is_model_name(name);
            if !fine {
                tracing::warn!("'{}' of {} is no model's name", name.escape_debug(), self.address);
            }
            fine
        });
        Ok(found)
    }

    /// Copies a model if it has changed. Its own troubles are noted; `wanted` says that it is to be loaded now.
    async fn refresh_one(
        &self,
        models: &mut BTreeMap<String, Model>,
        name: &str,
        files: Files,
        wanted: bool,
    ) -> Result<(), RepositoryError> {
        let model = models.entry(name.to_owned()).or_default();
        let mut files = files;
        for _ in 0..TRIES {
            if model.copy.as_ref().is_some_and(|copy| copy.files == files) {
                model.problem = None;
                return Ok(());
            }
            match copy(&*self.store, self.root.path(), name, &files, model.copy.as_deref()).await {
                Ok(made) => {
                    let after = self.list(Some(name)).await?.remove(name).unwrap_or_default();
                    if after == files {
                        self.show(name, &made).map_err(|error| self.away(error.to_string()))?;
                        model.copy = Some(Arc::new(made));
                        model.problem = None;
                        return Ok(());
                    }
                    files = after;
                }
                Err(Trouble::Moving) => {
                    files = self.list(Some(name)).await?.remove(name).unwrap_or_default();
                }
                Err(Trouble::Other(why)) => {
                    tracing::error!(model = name, "{}: {why}", self.address);
                    model.problem = Some(format!("{}/{name}: {why}", self.address));
                    fs::create_dir_all(self.view.join(name)).map_err(|error| self.away(error.to_string()))?;
                    return Ok(());
                }
            }
        }
        tracing::info!(model = name, "it is being written: left until it is still");
        if wanted {
            model.problem =
                Some(format!("{}/{name} is being written: try again when it is whole", self.address));
            fs::create_dir_all(self.view.join(name)).map_err(|error| self.away(error.to_string()))?;
        }
        Ok(())
    }

    /// Puts a copy in the place of the one before, in one step.
    fn show(&self, name: &str, copy: &Copy) -> std::io::Result<()> {
        let (next, shown) = (self.view.join(".next"), self.view.join(name));
        match fs::remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(copy.directory.path().join(name), &next)?,
        }
        if shown.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            fs::remove_dir(&shown)?;
        }
        fs::rename(&next, &shown)
    }

    fn remove(&self, models: &mut BTreeMap<String, Model>, name: &str) -> Result<(), RepositoryError> {
        models.remove(name);
        let shown = self.view.join(name);
        let gone = match shown.symlink_metadata() {
            Ok(data) if data.is_dir() => fs::remove_dir(&shown),
            Ok(_) => fs::remove_file(&shown),
            Err(_) => Ok(()),
        };
        gone.map_err(|error| self.away(error.to_string()))
    }
}

impl Remote for Mirror {
    fn address(&self) -> &Path {
        Path::new(&self.address)
    }

    fn directory(&self) -> &Path {
        &self.view
    }

    fn refresh(&self, which: Which<'_>) -> Result<(), RepositoryError> {
        let work = || {
            let mut models = self.models();
            self.runtime.block_on(async {
                match which {
                    Which::All => self.refresh_all(&mut models).await,
                    Which::Only(names) => self.refresh_some(&mut models, names).await,
                }
            })
        };
        // On a thread of its own: whoever asks may be inside another runtime.
        std::thread::scope(|scope| scope.spawn(work).join())
            .unwrap_or_else(|_| Err(self.away("the thread that copies has ended")))
    }

    fn pinned(&self, found: FoundModel) -> FoundModel {
        if found.repository != self.view {
            return found;
        }
        let models = self.models();
        let Some(model) = models.get(&found.name) else { return found };
        let problem = found.problem.clone().or_else(|| model.problem.clone());
        match &model.copy {
            Some(copy) => {
                let dir = copy.directory.path().join(&found.name);
                let lease = Lease::new(Arc::<Copy>::clone(copy));
                FoundModel { problem, ..found.moved_to(dir, lease) }
            }
            None => FoundModel { problem, ..found },
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the environment must say, and what it may not say because it is not read here.
fn check_environment(address: &str, parsed: &Address) -> Result<(), ObjectsError> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let refuse =
        |why: &str| Err(ObjectsError::Credentials { address: address.to_owned(), why: why.to_owned() });
    if set("TRITON_CLOUD_CREDENTIAL_PATH") {
        return refuse(
            "TRITON_CLOUD_CREDENTIAL_PATH is set, but credential files are not read: set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY",
        );
    }
    match (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
        (true, true) => return Ok(()),
        (true, false) => return refuse("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"),
        (false, true) => return refuse("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not"),
        (false, false) => {}
    }
    if set("AWS_PROFILE") {
        return refuse(
            "AWS_PROFILE is set, but profiles are not read: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        );
    }
    let others = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ];
    // Amazon's own machines have credentials without any variable.
    if parsed.endpoint.is_some() && !others.into_iter().any(set) {
        return refuse("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set");
    }
    Ok(())
}
