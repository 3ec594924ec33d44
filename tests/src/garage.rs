// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real object store: three Garage nodes on loopback, each with a copy of everything.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use evenkeel_store::backend::S3Backend;
use evenkeel_store::backend::http::{HttpOptions, Patience};
use evenkeel_store::backend::s3::{S3Key, S3Options};

/// Nodes, and copies of each object.
pub const NODES: usize = 3;
/// The bucket that is made.
pub const BUCKET: &str = "releases";
const SOON: Duration = Duration::from_secs(60);

/// A cluster. It ends with this value.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    program: PathBuf,
    nodes: Mutex<Vec<Option<Child>>>,
    endpoints: Vec<String>,
    key: S3Key,
}

impl Cluster {
    /// Starts the nodes and makes a layout, a bucket and a key. The program is what `GARAGE` names, or `garage`.
    pub fn start() -> Cluster {
        let dir = crate::temp_dir();
        let program = std::env::var_os("GARAGE").map_or_else(|| PathBuf::from("garage"), PathBuf::from);
        let (rpc, api, admin) = (ports(), ports(), ports());
        for node in 0..NODES {
            let here = dir.path().join(format!("node{node}"));
            std::fs::create_dir(&here).unwrap();
            let config = format!(
                "metadata_dir = {meta:?}\ndata_dir = {data:?}\ndb_engine = \"sqlite\"\nreplication_factor = {NODES}\n\
                 rpc_ping_timeout_msec = 1000\nrpc_timeout_msec = 5000\n\
                 rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
                 rpc_secret = \"{secret}\"\n[s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{api}\"\n\
                 [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n",
                meta = here.join("meta"),
                data = here.join("data"),
                rpc = rpc[node],
                api = api[node],
                admin = admin[node],
                secret = "5e".repeat(32),
            );
            std::fs::write(dir.path().join(format!("node{node}.toml")), config).unwrap();
        }
        let endpoints = api.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let key = S3Key { id: String::new(), secret: String::new() };
        let nodes = Mutex::new((0..NODES).map(|_| None).collect());
        let mut cluster = Cluster { dir, program, nodes, endpoints, key };
        (0..NODES).for_each(|node| cluster.revive(node));
        let ids: Vec<String> = (0..NODES).map(|node| cluster.until_told(node, &["node", "id", "-q"])).collect();
        for other in &ids[1..] {
            cluster.until_told(0, &["node", "connect", other.trim()]);
        }
        for (node, id) in ids.iter().enumerate() {
            let id = id.split('@').next().unwrap();
            cluster.until_told(0, &["layout", "assign", "-z", &format!("zone{node}"), "-c", "1G", id]);
        }
        cluster.until_told(0, &["layout", "apply", "--version", "1"]);
        cluster.until_told(0, &["bucket", "create", BUCKET]);
        let told = cluster.until_told(0, &["key", "create", "writer"]);
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {told}")).trim().to_string()
        };
        cluster.key = S3Key { id: field("Key ID:"), secret: field("Secret key:") };
        cluster.until_told(0, &["bucket", "allow", "--read", "--write", BUCKET, "--key", "writer"]);
        cluster
    }

    /// Where the store below `prefix` is, through all nodes. What is to be sent lies in `spool` meanwhile.
    pub fn backend(&self, prefix: &str, spool: PathBuf) -> S3Backend {
        self.backend_with(prefix, spool, |_| {})
    }

    /// The same with changed options.
    pub fn backend_with(&self, prefix: &str, spool: PathBuf, change: impl FnOnce(&mut S3Options)) -> S3Backend {
        let patience =
            Patience { pause: Duration::from_millis(20), pause_max: Duration::from_secs(1), ..Patience::default() };
        let mut options = S3Options {
            endpoints: self.endpoints.clone(),
            region: "garage".into(),
            key: Some(self.key.clone()),
            is_virtual_host: false,
            spool,
            http: HttpOptions { patience, ..HttpOptions::default() },
        };
        change(&mut options);
        S3Backend::new(&format!("s3://{BUCKET}/{prefix}"), options).unwrap()
    }

    /// The addresses of all nodes.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// What nobody may see.
    pub fn secret(&self) -> String {
        self.key.secret.clone()
    }

    /// Ends a node as a failing machine does.
    pub fn kill(&self, node: usize) {
        let mut child = self.nodes.lock().unwrap()[node].take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a node that does not run.
    pub fn revive(&self, node: usize) {
        let log = std::fs::File::create(self.dir.path().join(format!("node{node}.log"))).unwrap();
        let child = self.command(node).arg("server").stdout(Stdio::null()).stderr(log).spawn();
        let child = child.unwrap_or_else(|e| panic!("{} does not start: {e}", self.program.display()));
        self.nodes.lock().unwrap()[node] = Some(child);
    }

    /// Waits until all nodes see each other.
    pub fn settle(&self) {
        let start = Instant::now();
        loop {
            let status = self.until_told(0, &["status"]);
            if !status.contains("FAILED") && status.matches("zone").count() == NODES {
                return;
            }
            assert!(start.elapsed() < SOON, "{status}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn command(&self, node: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.dir.path().join(format!("node{node}.toml"))).env("RUST_LOG", "garage=warn");
        command
    }

    /// What the program says, once it succeeds: nodes take a moment to come up.
    fn until_told(&self, node: usize, args: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let output = self.command(node).args(args).output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            assert!(start.elapsed() < SOON, "garage {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.lock().unwrap().iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that nobody has right now.
fn ports() -> [u16; NODES] {
    let listeners: [TcpListener; NODES] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
