// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one run of the program has at hand: options, configuration, output, and the store once it is needed.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_store::backend::BundleBackend;
use evenkeel_store::catalog::Catalog;
use evenkeel_store::checkout::{AreaTarget, BackOptions};
use evenkeel_store::id::SnapshotId;
use evenkeel_store::read::ChunkReader;
use evenkeel_store::{ErrorKind, Progress, Store};

use crate::aftermath::Watched;
use crate::args::Globals;
use crate::bucket;
use crate::config::{self, Config};
use crate::error::{CommandError, Result};
use crate::output::{Output, progress};
use crate::remote;

/// Options, configuration and output of this run.
pub struct Session {
    /// Where results and messages go.
    pub out: Output,
    /// What the configuration says.
    pub config: Config,
    config_file: Option<PathBuf>,
    store: Option<PathBuf>,
    state: Option<PathBuf>,
    watched: RefCell<Vec<Watched>>,
    done: RefCell<Vec<String>>,
    opened: OnceCell<Store>,
    limit_rate: Cell<Option<u64>>,
}

impl Session {
    /// A session without a configuration yet.
    pub fn new(globals: Globals, out: Output) -> Self {
        let Globals { store, config, state, .. } = globals;
        Session {
            out,
            config: Config::default(),
            config_file: config,
            store,
            state,
            watched: RefCell::default(),
            done: RefCell::default(),
            opened: OnceCell::new(),
            limit_rate: Cell::default(),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_config(&mut self) -> Result<()> {
        self.config = Config::load(self.config_file.as_deref())?;
        Ok(())
    }

    /// Where the store is said to be.
    pub fn store_path(&self) -> Option<&Path> {
        self.store.as_deref().or(self.config.store.as_deref())
    }

    /// Bounds how fast content comes from a web server, whatever the configuration says.
    pub fn limit_rate(&self, rate: Option<u64>) {
        self.limit_rate.set(rate);
    }

    /// Opens the store.
    ///
    /// # Errors
    /// A usage error when nothing names one; otherwise as [`Store::open`].
    pub fn open_store(&self) -> Result<Store> {
        let path = self.store_path().ok_or_else(|| {
            CommandError::usage("no store is named")
                .hint("name one with --store PATH, EVENKEEL_STORE, or `store = …` in the configuration")
        })?;
        let store = if bucket::is_address(path) {
            Store::open_at(Arc::new(bucket::open(path, &self.config, &self.state_dir()?)?))?
        } else if remote::is_address(path) {
            if self.config.http.token_file.is_some() && self.opened.get().is_none() && remote::is_in_the_clear(path) {
                self.out.warning("without TLS, the token can be read on its way: use an https:// address");
            }
            remote::open(path, &self.config.http, self.limit_rate.get())?
        } else if BundleBackend::is_one(path) {
            Store::open_at(Arc::new(BundleBackend::open(path)?))?
        } else {
            Store::open(path)?
        };
        Ok(self.opened.get_or_init(|| store).clone())
    }

    /// Opens the store's index and says what was wrong with it.
    ///
    /// # Errors
    /// As [`Store::reader`].
    pub fn open_reader(&self, store: &Store) -> Result<ChunkReader> {
        let reader = store.reader()?;
        for note in reader.notes() {
            self.out.warning(note);
        }
        Ok(reader)
    }

    /// Opens what tells where the chunks of some snapshots are, and says what was wrong with it.
    ///
    /// # Errors
    /// As [`Store::reader_of`].
    pub fn open_reader_of(&self, store: &Store, snapshots: &[SnapshotId]) -> Result<ChunkReader> {
        let reader = store.reader_of(snapshots)?;
        for note in reader.notes() {
            self.out.warning(note);
        }
        Ok(reader)
    }

    /// Says what turned out to be wrong with the place where the store is.
    pub fn tell_of_store(&self) {
        for note in self.opened.get().iter().flat_map(|store| store.backend().notes()) {
            self.out.warning(note);
        }
    }

    /// Opens the catalog; `None` when another process has it open or it cannot be made, for the store knows everything.
    ///
    /// # Errors
    /// As [`Session::state_dir`].
    pub fn open_catalog(&self, store: &Store) -> Result<Option<Catalog>> {
        match Catalog::open(store, &self.state_dir()?) {
            Ok(catalog) => {
                for note in catalog.notes() {
                    self.out.warning(note);
                }
                Ok(Some(catalog))
            }
            Err(error) if error.kind() == ErrorKind::Locked => Ok(None),
            Err(error) => {
                self.out.warning(format_args!("{error}; going on without it"));
                Ok(None)
            }
        }
    }

    /// The directory of this machine's own memory.
    ///
    /// # Errors
    /// As [`config::default_state_dir`].
    pub fn state_dir(&self) -> Result<PathBuf> {
        match self.state.as_ref().or(self.config.state.as_ref()) {
            Some(path) => Ok(path.clone()),
            None => config::default_state_dir(),
        }
    }

    /// How to go back, or on, and who asks for it.
    ///
    /// # Errors
    /// As [`Session::state_dir`].
    pub fn back_options(&self) -> Result<BackOptions> {
        let (asked_by, records) = (Some(config::asked_by()), self.config.records.limits());
        Ok(BackOptions { asked_by, records, ..BackOptions::new(self.state_dir()?) })
    }

    /// What no area may hold: the program's state, its configuration and the store, as absolute paths.
    ///
    /// # Errors
    /// As [`Session::state_dir`].
    pub fn protected(&self) -> Result<Vec<PathBuf>> {
        let state = self.state_dir()?;
        let program = std::env::current_exe().ok();
        let store = self.store_path().filter(|path| !remote::is_address(path));
        let paths = [Some(state.as_path()), store, self.config.file.as_deref(), program.as_deref()];
        Ok(paths.into_iter().flatten().filter_map(|path| std::path::absolute(path).ok()).collect())
    }

    /// Looks at areas that are about to be changed, so that a failure can tell what became of them.
    pub fn watch<'a>(&self, targets: impl IntoIterator<Item = &'a AreaTarget>) {
        let state_dir = self.state_dir().ok();
        let watched = targets.into_iter().map(|target| Watched::new(target, state_dir.as_deref()));
        self.watched.borrow_mut().extend(watched);
    }

    /// Remembers what is done, for the error if it cannot be told otherwise.
    pub fn done(&self, what: impl Into<String>) {
        self.done.borrow_mut().push(what.into());
    }

    /// A failure, with what it has left in the areas that were to be changed, and what else was done.
    pub fn with_aftermath(&self, error: CommandError) -> CommandError {
        CommandError { done: self.done.take(), ..error.after(&self.watched.borrow()) }
    }

    /// Runs something long, with progress on stderr and Ctrl-C heard.
    ///
    /// # Errors
    /// What `operation` fails with.
    pub fn run_long<T>(&self, operation: impl FnOnce(&Progress) -> evenkeel_store::Result<T>) -> Result<T> {
        progress::run(&self.out, operation)
    }

    /// The snapshot that `name` means.
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn resolve(&self, store: &Store, name: &str) -> Result<SnapshotId> {
        store.resolve(name).map_err(|error| {
            let is_latest = name.starts_with("@latest");
            let error = CommandError::from(error);
            if !is_latest {
                return error;
            }
            match store.list_snapshots() {
                Ok(list) if list.there.is_empty() && list.missing.is_empty() => CommandError {
                    hints: vec!["the store is empty: `evenkeel commit` makes a snapshot".into()],
                    ..error
                },
                Ok(list) if !list.missing.is_empty() => match list.there.last() {
                    Some(older) => error.hint(format!(
                        "copy it back from a backup, or name an older one outright: the last that is there is {}",
                        older.id.short(12)
                    )),
                    None => error,
                },
                _ => error,
            }
        })
    }
}
